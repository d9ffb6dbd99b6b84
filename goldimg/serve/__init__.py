"""The site's kickstart server: what it knows of hosts, what it gives to whom, and its pages."""

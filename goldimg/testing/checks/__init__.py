"""The checks that goldimg brings, run by pytest; a site's own are in its tests.d/."""

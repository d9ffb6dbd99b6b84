<?php return ['hostname' => 'node01', 'device' => 'em1', 'ipaddr' => '192.0.2.11', 'netmask' => '255.255.255.0', 'gateway' => '192.0.2.1'];

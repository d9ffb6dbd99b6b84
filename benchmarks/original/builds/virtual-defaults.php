<?php return ['bootsize' => 400];

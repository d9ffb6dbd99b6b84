
<?php if (!empty($ipaddr)) { ?>
network --device <?= $device ?> --bootproto static --ip <?= $ipaddr ?> --netmask <?= $netmask ?> --gateway <?= $gateway ?> --hostname <?= $hostname . "\n" ?>
<?php } else { ?>
network --device eth0 --bootproto dhcp
<?php } ?>
bootloader --location mbr --driveorder sda --append "rdblacklist=nouveau nouveau.modeset=0"


zerombr
ignoredisk --only-use sda
clearpart --drives sda --all --initlabel
<?php if ($boot) { ?>
part /boot --fstype ext3 --size <?= $bootsize ?> --ondisk sda
<?php } if ($lvm) { ?>
part pv.01 --size 1 --grow --ondisk sda
volgroup <?= $hostname ?>_rootvg --pesize 32768 pv.01
<?php if ($swap) { ?>
logvol swap --fstype swap --name swap --vgname <?= $hostname ?>_rootvg --recommended
<?php } ?>
logvol / --fstype <?= $fstype ?> --name rootvol --vgname <?= $hostname ?>_rootvg --size 1 --grow
<?php } else { ?>
part / --fstype <?= $fstype ?> --size 1 --grow --ondisk sda
<?php } ?>

reboot

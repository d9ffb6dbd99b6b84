install
cmdline
unsupported_hardware

url --url <?= $os['repo_server'] ?>/<?= $os['os_version'] ?>/os/x86_64

lang <?= $site['lang'] . "\n" ?>
keyboard <?= $site['keyboard'] . "\n" ?>
timezone --utc <?= $site['timezone'] . "\n" ?>

rootpw --iscrypted <?= $hash . "\n" ?>
authconfig --enableshadow --passalgo sha512
firewall --enabled --port 22:tcp
selinux --disabled
firstboot --disabled

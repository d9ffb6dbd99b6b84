<?php
// A page that does what the original's did for each request, written anew: it reads both JSON files,
// hashes the password, and includes a definition and sections. Benchmarks only.
function part(string $name, array $v): void { extract($v); include __DIR__ . "/parts/$name.php"; }
header('Content-Type: text/plain');
$site = json_decode(file_get_contents(__DIR__ . '/site.json'), true);
[$kind, $build] = explode('/', $_GET['build'] ?? 'virtual/defaults') + ['virtual', 'defaults'];
$os = basename($_GET['os'] ?? '');
$packer_os = json_decode(file_get_contents(__DIR__ . "/os/$os.json"), true);
$v = ['lvm' => true, 'boot' => true, 'bootsize' => 1024, 'swap' => true, 'fstype' => 'xfs', 'hostname' => ''];
foreach (["$kind-defaults", "$kind-" . basename($build)] as $name) {
    $file = __DIR__ . "/builds/$name.php";
    if (is_file($file)) { $v = array_merge($v, include $file); }
}
$v += ['site' => $site, 'os' => $packer_os];
$v['hash'] = crypt($site['root_pass'], '$6$rounds=5000$' . $site['root_salt'] . '$');
foreach (['head', 'network', 'disk', 'packages'] as $name) { part($name, $v); }

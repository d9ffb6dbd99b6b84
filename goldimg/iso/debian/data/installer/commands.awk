# What each command of a kickstart means: rows and scalars of the tables that parse.awk describes.

function volume_type(mount, fstype,    type) {
    type = fstype
    if (mount == "swap") type = "swap"
    else if (mount == "biosboot") type = "biosboot"
    else if (mount ~ /^pv\./) type = "pv"
    else if (type == "") type = mount == "/boot/efi" ? "efi" : "ext4"
    if (type !~ /^(ext2|ext3|ext4|xfs|vfat|efi|swap|biosboot|pv)$/)
        problem("unsupported file system '" type "' in '" W[1] "'")
    return type
}

function check_mount(mount) {
    if (mount !~ /^(\/[A-Za-z0-9._\/-]*|swap|biosboot|pv\.[A-Za-z0-9_-]+)$/) {
        problem("unsupported mount point '" mount "' in '" W[1] "'")
        return 0
    }
    if (mount ~ /^\// && (mount in mounts)) problem("'" mount "' is already used in line " mounts[mount])
    mounts[mount] = AT
    return 1
}

function check_size(mount) {
    if (O["size"] == "" && !("recommended" in O) && !("percent" in O))
        problem("'" W[1] " " mount "' needs --size or --recommended")
    if (("recommended" in O) && mount != "swap")
        problem("--recommended is only understood for swap, not for '" mount "'")
    number(O["size"], "--size"); number(O["maxsize"], "--maxsize")
}

function partition(    mount, type, disk) {
    if (!need(args == 1, "one mount point")) return
    mount = A[1]
    if (!check_mount(mount)) return
    type = volume_type(mount, O["fstype"])
    check_size(mount)
    disk = O["ondisk"] != "" ? O["ondisk"] : O["ondrive"]
    disk = disks(disk)
    if (type == "pv") pvs[mount] = AT
    row("parts", mount FIELD O["size"] FIELD O["grow"] FIELD type FIELD O["recommended"] FIELD \
        clean(disk) FIELD O["asprimary"] FIELD clean(O["label"]) FIELD clean(O["fsoptions"]) FIELD \
        O["maxsize"] FIELD AT)
}

function volgroup(    i, list) {
    if (!need(args >= 2, "a name and its physical volumes")) return
    if (A[1] !~ /^[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$/) problem("unsupported volume group name '" A[1] "'")
    for (i = 2; i <= args; i++) {
        if (!(A[i] in pvs) && !lenient) problem("volume group '" A[1] "': no partition '" A[i] "' before this line")
        list = list (i > 2 ? " " : "") A[i]
    }
    number(O["pesize"], "--pesize")
    groups[A[1]] = AT
    # anaconda counts the extent in KiB: https://pykickstart.readthedocs.io (volgroup --pesize)
    row("volgroups", A[1] FIELD list FIELD O["pesize"] FIELD AT)
}

function logvol(    mount, type) {
    if (!need(args == 1, "one mount point")) return
    mount = A[1]
    if (!check_mount(mount)) return
    if (mount == "/boot" || mount == "/boot/efi" || mount ~ /^(pv\.|biosboot)/)
        problem("'" mount "' cannot be a logical volume")
    type = volume_type(mount, O["fstype"])
    check_size(mount); number(O["percent"], "--percent")
    if (O["name"] !~ /^[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$/) problem("'logvol " mount "' needs a valid --name")
    if (!(O["vgname"] in groups) && !lenient) problem("logvol '" mount "': no volume group '" O["vgname"] "' before this line")
    row("logvols", mount FIELD O["size"] FIELD O["grow"] FIELD type FIELD O["recommended"] FIELD \
        O["name"] FIELD O["vgname"] FIELD clean(O["fsoptions"]) FIELD O["maxsize"] FIELD \
        O["percent"] FIELD AT)
}

function address(value, what) {
    if (value != "" && value !~ /^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$/)
        problem("network --" what ": not an IPv4 address: " value)
}

# Names of disks, as the kernel has them or below /dev/disk/by-id, with or without /dev/.
function disks(value,    n, i, list, name, said) {
    n = split(value, list, ",")
    for (i = 1; i <= n; i++) {
        name = list[i]
        sub(/^\/dev\//, "", name)
        if (name !~ /^([A-Za-z0-9]+|disk\/by-id\/[A-Za-z0-9._:+@=#-]+)$/)
            problem("not a disk name in '" W[1] "': " name)
        said = said (said == "" ? "" : " ") name
    }
    return said
}

# bonding's options (https://www.kernel.org/doc/Documentation/networking/bonding.rst) that
# systemd.netdev(5) has a word for; commas separate them, or semicolons where a value has commas.
function bond_options(value,    n, i, list, said) {
    n = split(value, list, value ~ /;/ ? ";" : ",")
    for (i = 1; i <= n; i++) {
        if (list[i] !~ /^[a-z_]+=[A-Za-z0-9.,:+_-]+$/ || !(substr(list[i], 1, index(list[i], "=") - 1) in BOND))
            problem("unsupported network --bondopts: " list[i])
        else if (list[i] ~ /^mode=/ && list[i] !~ BOND_MODES)
            problem("unknown " list[i] " in network --bondopts")
        said = said (said == "" ? "" : " ") list[i]
    }
    return said
}

function device_names(value, what) {
    if (value !~ /^[A-Za-z0-9._:,-]*$/) problem("network --" what ": not a device name")
    return value
}

function check_ipv6(    v6) {
    v6 = O["ipv6"]
    if (v6 != "" && v6 != "auto" && v6 != "dhcp" && v6 !~ /^[0-9A-Fa-f]*:[0-9A-Fa-f:.]*\/[0-9]+$/)
        problem("unsupported network --ipv6=" v6 " (auto, dhcp or ADDRESS/PREFIX)")
    if (v6 != "" && ("noipv6" in O)) problem("network: --ipv6 and --noipv6 exclude one another")
    if (O["ipv6gateway"] !~ /^([0-9A-Fa-f]*:[0-9A-Fa-f:.]*)?$/)
        problem("network --ipv6gateway: not an IPv6 address: " O["ipv6gateway"])
    if (O["ipv6gateway"] != "" && v6 !~ /\//) problem("network --ipv6gateway needs --ipv6=ADDRESS/PREFIX")
}

function check_ipv4(proto) {
    if (proto !~ /^(dhcp|static)$/) problem("unsupported network --bootproto=" proto)
    if (proto == "static" && O["ipv6"] !~ /\// && (O["ip"] == "" || O["netmask"] == ""))
        problem("network --bootproto=static needs --ip and --netmask")
    if ((O["ip"] == "") != (O["netmask"] == "")) problem("network needs both --ip and --netmask, or none")
    if (("noipv4" in O) && O["ip"] != "") problem("network: --ip and --noipv4 exclude one another")
    address(O["ip"], "ip"); address(O["netmask"], "netmask"); address(O["gateway"], "gateway")
}

# Two lines for one device: only the first would count.
function check_device(    interface) {
    interface = O["device"]
    if (O["vlanid"] != "") {
        interface = O["interfacename"] == "" ? O["device"] "." O["vlanid"] : O["interfacename"]
        if (O["device"] == "" || O["device"] ~ /^(link|bootif)$/) problem("network --vlanid needs the --device below it")
        if (interface !~ /^[A-Za-z0-9._-]+$/ || length(interface) > 15)
            problem("network: '" interface "' cannot be a device's name; add --interfacename=NAME")
        if (O["vlanid"] + 0 < 1 || O["vlanid"] + 0 > 4094) problem("network --vlanid: 1 to 4094, not " O["vlanid"])
    } else if ("interfacename" in O) problem("network --interfacename needs --vlanid")
    if (O["bondslaves"] != "" && O["device"] !~ /^[A-Za-z][A-Za-z0-9._-]*$/)
        problem("network --bondslaves needs --device=bond0 or another name")
    if (O["bondopts"] != "" && O["bondslaves"] == "") problem("network --bondopts needs --bondslaves")
    if (interface in devices) problem("network device '" interface "' is already configured in line " devices[interface])
    else if (interface !~ /^(link|bootif|)$/) devices[interface] = AT
    return O["vlanid"] == "" ? "" : interface
}

function network(    proto, servers, interface) {
    proto = O["bootproto"] == "" ? "dhcp" : O["bootproto"]
    servers = O["nameserver"]
    if (servers !~ /^[0-9A-Fa-f.:,]*$/) problem("network --nameserver: not addresses: " servers)
    gsub(/,/, " ", servers)
    if (O["hostname"] != "") {
        if (O["hostname"] !~ /^[A-Za-z0-9][A-Za-z0-9.-]*$/) problem("network --hostname: not a host name")
        scalar("hostname", O["hostname"])
        if (!("bootproto" in O) && !("device" in O)) return
    }
    check_ipv4(proto); check_ipv6()
    number(O["mtu"], "--mtu"); number(O["vlanid"], "--vlanid")
    device_names(O["device"], "device"); device_names(O["bondslaves"], "bondslaves")
    interface = check_device()
    gsub(/,/, " ", O["bondslaves"])
    row("networks", proto FIELD O["device"] FIELD O["ip"] FIELD O["netmask"] FIELD O["gateway"] \
        FIELD servers FIELD O["noipv6"] FIELD O["onboot"] FIELD O["noipv4"] FIELD O["ipv6"] FIELD \
        O["ipv6gateway"] FIELD O["mtu"] FIELD O["vlanid"] FIELD interface FIELD O["bondslaves"] \
        FIELD bond_options(O["bondopts"]) FIELD AT)
}

# a crypt(3) hash, or "" ; plain text is hashed by the target's own chpasswd
function check_hash(value) {
    if (value !~ /^([$][A-Za-z0-9]+[$].+|[*!].*)$/) problem("the hash of '" W[1] "' is not a crypt(3) hash")
}

function user() {
    if (!need(O["name"] ~ /^[a-z_][a-z0-9_-]*$/, "a valid --name")) return
    if (O["password"] ~ /[[:cntrl:]:]/) problem("the password of 'user' has a ':' or a control character")
    if ("iscrypted" in O) check_hash(O["password"])
    printf "%s", O["password"] > (out "/password." O["name"])
    gsub(/,/, " ", O["groups"])
    if (O["groups"] !~ /^[a-z0-9_ -]*$/) problem("user --groups: not group names")
    if (O["shell"] !~ /^(\/[A-Za-z0-9\/._-]+)?$/) problem("user --shell: not a path")
    number(O["uid"], "--uid")
    if ("homedir" in O) problem("unsupported option '--homedir' of 'user'")
    row("users", O["name"] FIELD O["groups"] FIELD (O["password"] == "" ? "none" : \
        (("iscrypted" in O) ? "hash" : "plain")) FIELD O["shell"] FIELD O["lock"] FIELD O["uid"] \
        FIELD clean(O["gecos"]))
}

function rootpw() {
    if ("allow-ssh" in O) problem("unsupported option '--allow-ssh' of 'rootpw'")
    if (args > 1) problem("'rootpw' takes one password")
    if ("lock" in O) scalar("rootpw_mode", "lock")
    else if (!need(args == 1, "a password, a hash or --lock")) return
    else if ("iscrypted" in O) { check_hash(A[1]); scalar("rootpw_mode", "hash") }
    else scalar("rootpw_mode", "plain")
    if (args && A[1] ~ /[[:cntrl:]:]/) problem("the password of 'rootpw' has a ':' or a control character")
    if (args) scalar("rootpw", A[1])
}

function sshkey() {
    if (!need(args == 1 && A[1] ~ /^[a-z0-9@.-]+ [A-Za-z0-9+\/=]+( .*)?$/, "one public key in quotes")) return
    if (O["username"] == "") O["username"] = "root"
    if (O["username"] !~ /^[a-z_][a-z0-9_-]*$/) problem("sshkey --username: not a user name")
    row("sshkeys", O["username"] FIELD clean(A[1]))
}

function services(    i, n, list, which, key) {
    for (key in O) {
        n = split(O[key], list, ",")
        for (i = 1; i <= n; i++) {
            gsub(/ /, "", list[i])
            if (list[i] !~ /^[A-Za-z0-9@._:-]+$/) problem("services: not a unit name: " list[i])
            row("services", (key == "enabled" ? "enable" : "disable") FIELD list[i])
        }
    }
}

function bootloader() {
    if (O["location"] !~ /^(|mbr|partition|boot|none)$/) problem("unsupported bootloader --location=" O["location"])
    if (O["location"] != "" && O["location"] !~ /^(mbr|boot)$/) problem("unsupported bootloader --location=" O["location"])
    if ("password" in O) problem("unsupported option '--password' of 'bootloader'")
    number(O["timeout"], "--timeout")
    scalar("append", O["append"]); scalar("timeout", O["timeout"])
    scalar("boot_drive", disks(O["boot-drive"]))
}

function clearpart() {
    if ("list" in O) problem("unsupported option '--list' of 'clearpart'")
    if (O["disklabel"] !~ /^(gpt|msdos|dos|)$/) problem("unsupported clearpart --disklabel=" O["disklabel"])
    scalar("disklabel", O["disklabel"] == "msdos" ? "dos" : O["disklabel"])
    scalar("clear", ("none" in O) ? "" : (("all" in O) ? "all" : ""))
    scalar("clear_drives", disks(O["drives"]))
}

function ignoredisk() {
    scalar("only_use", disks(O["only-use"]))
    scalar("ignored", disks(O["drives"]))
}

function url() {
    if (!need(O["url"] ~ /^https?:\/\/[^ |'"\\]+$/, "--url=http://...")) return
    scalar("url", O["url"]); scalar("proxy", proxy())
}

# A login in it would be readable in the installed system's configuration.
function proxy() {
    if (O["proxy"] !~ /^(http:\/\/[A-Za-z0-9.:_-]+\/?)?$/)
        problem("'" W[1] " --proxy' is not http://HOST:PORT (a login is not understood)")
    return O["proxy"]
}

function repo() {
    if (!need(O["name"] != "" && O["baseurl"] ~ /^https?:\/\/[^ |'"\\]+$/, "--name and --baseurl")) return
    row("repos", clean(O["name"]) FIELD O["baseurl"] FIELD proxy())
}

function language() {
    if (!need(args == 1 && A[1] ~ /^[A-Za-z_]+(\.[A-Za-z0-9-]+)?(@[a-z]+)?$/, "one locale")) return
    scalar("lang", A[1])
}

function keyboard(    map) {
    map = args ? A[1] : O["vckeymap"]
    if (map == "") map = O["xlayouts"]
    sub(/,.*/, "", map); sub(/ .*/, "", map)
    if (!need(map ~ /^[A-Za-z0-9_-]+$/, "one keyboard map")) return
    scalar("keyboard", map)
}

function timezone() {
    if (!need(args == 1 && A[1] ~ /^[A-Za-z0-9_+-]+(\/[A-Za-z0-9_+-]+)*$/, "one time zone")) return
    scalar("timezone", A[1])
    time_servers(O["ntpservers"])
    if ("nontp" in O) scalar("ntp_off", "1")
}

function timesource() {
    if ("nts" in O) problem("unsupported option '--nts' of 'timesource'")
    time_servers(O["ntp-server"]); time_servers(O["ntp-pool"])
    if ("ntp-disable" in O) scalar("ntp_off", "1")
}

function time_servers(value) {
    if (value !~ /^[A-Za-z0-9.:,_-]*$/) problem("not names of time servers in '" W[1] "': " value)
    gsub(/,/, " ", value)
    if (value != "") ntp = ntp (ntp == "" ? "" : " ") value
}

# What several lines may add to.
function finish_scalars() { scalar("ntp", ntp) }

function command(name) {
    if (name in INERT) {
        if (name !~ /^(text|cmdline|install|skipx)$/) note("'" name "' has no effect on Debian")
    }
    else if (name == "url") url()
    else if (name == "repo") repo()
    else if (name == "lang") language()
    else if (name == "keyboard") keyboard()
    else if (name == "timezone") timezone()
    else if (name == "timesource") timesource()
    else if (name == "network") network()
    else if (name == "rootpw") rootpw()
    else if (name == "sshkey") sshkey()
    else if (name == "user") user()
    else if (name == "services") services()
    else if (name == "bootloader") bootloader()
    else if (name == "zerombr") scalar("zerombr", "1")
    else if (name == "clearpart") clearpart()
    else if (name == "ignoredisk") ignoredisk()
    else if (name == "part" || name == "partition") partition()
    else if (name == "volgroup") volgroup()
    else if (name == "logvol") logvol()
    else if (name == "reqpart") scalar("reqpart", ("add-boot" in O) ? "boot" : "1")
    else if (name ~ /^(reboot|poweroff|shutdown|halt)$/) {
        scalar("final", name == "shutdown" ? "poweroff" : name)
        scalar("eject", O["eject"])
    }
}


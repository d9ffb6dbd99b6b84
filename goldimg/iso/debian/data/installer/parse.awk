# Reads a kickstart and writes what it asks for as small tables that install.sh reads.
#
#   awk -v out=DIR -f parse.awk KICKSTART      exit 1: DIR/errors says line and name of each problem
#
# DIR/scalars.sh   KS_name='value' for what can be given once
# DIR/parts        mount|MiB|grow|fstype|recommended|disk|primary|label|options|maximum|line
# DIR/volgroups    name|physical volumes|MiB of an extent|line
# DIR/logvols      mount|MiB|grow|fstype|recommended|name|group|options|maximum|percent|line
# DIR/networks     bootproto|device|ip|netmask|gateway|nameservers|noipv6|onboot
# DIR/users        name|groups|mode|shell|lock|uid|comment     the password is in DIR/password.NAME
# DIR/sshkeys      user|key
# DIR/services     enable or disable|unit
# DIR/repos        name|url
# DIR/packages     +name or -name
# DIR/scripts      pre or post|number|line|interpreter|nochroot|log|erroronfail  body: DIR/script.N
# DIR/notes        what was accepted and has no effect on Debian
#
# The syntax is that of https://pykickstart.readthedocs.io/en/latest/kickstart-docs.html ; what is
# not in the tables below is refused, because a half-understood answer file wipes a disk.

BEGIN {
    # command -> its options; "=" takes a value, "?" may, none is a flag
    S["text"] = S["cmdline"] = S["graphical"] = S["skipx"] = S["zerombr"] = S["install"] = ""
    S["url"] = "url="
    S["repo"] = "name= baseurl= install"
    S["lang"] = "addsupport="
    S["keyboard"] = "vckeymap= xlayouts= switch="
    S["timezone"] = "utc isUtc nontp ntpservers="
    S["timesource"] = "ntp-server= ntp-pool= ntp-disable nts"
    S["network"] = "bootproto= device= ip= netmask= gateway= nameserver= hostname= activate onboot? " \
        "noipv6 noipv4 ipv6="
    S["rootpw"] = "iscrypted lock plaintext allow-ssh"
    S["sshkey"] = "username="
    S["user"] = "name= groups= password= iscrypted plaintext shell= lock uid= gecos= homedir="
    S["firewall"] = "enabled disabled enable disable service= port= ssh http smtp ftp trust="
    S["selinux"] = "enforcing permissive disabled"
    S["firstboot"] = "enable enabled disable disabled reconfig"
    S["authselect"] = S["auth"] = S["authconfig"] = "*"
    S["eula"] = "agreed"
    S["logging"] = "host= port= level="
    S["services"] = "enabled= disabled="
    S["bootloader"] = "location= append= timeout= boot-drive= driveorder= password= iscrypted " \
        "leavebootorder"
    S["clearpart"] = "all drives= initlabel none disklabel= list="
    S["ignoredisk"] = "only-use= drives="
    S["part"] = S["partition"] = "size= grow fstype= recommended ondisk= ondrive= asprimary label= " \
        "fsoptions= maxsize="
    S["volgroup"] = "pesize="
    S["logvol"] = "vgname= name= size= grow fstype= recommended fsoptions= maxsize= percent= label="
    S["reqpart"] = "add-boot"
    S["reboot"] = S["poweroff"] = S["shutdown"] = S["halt"] = "eject kexec"
    split("text cmdline graphical skipx install firewall selinux firstboot authselect auth " \
        "authconfig eula logging timesource", words, " ")
    for (i in words) INERT[words[i]] = 1
    S["%packages"] = "nobase excludedocs instLangs= inst-langs= ignoremissing ignorebroken " \
        "exclude-weakdeps nocore retries= timeout="
    S["%pre"] = "interpreter= log= erroronfail"
    S["%post"] = "nochroot interpreter= log= erroronfail"
    FIELD = "|"
    section = ""
    split("errors scalars.sh parts volgroups logvols networks users sshkeys services repos " \
        "packages scripts notes", words, " ")
    for (i in words) printf "" > (out "/" words[i])
}

function problem(line, text) {
    printf "line %d: %s\n", line, text > (out "/errors")
    failed = 1
}

function note(text) { printf "line %d: %s\n", NR, text > (out "/notes") }

function scalar(name, value) {
    gsub(/'/, "'\\''", value)
    printf "KS_%s='%s'\n", name, value > (out "/scalars.sh")
}

# Splits `text` into words as a shell would: quotes, backslashes and comments. Returns their number.
function split_words(text, words,    i, c, quote, word, started, n) {
    n = 0; word = ""; started = 0; quote = ""
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        if (quote != "") {
            if (c == quote) quote = ""
            else if (c == "\\" && quote == "\"" && substr(text, i + 1, 1) ~ /["\\]/)
                word = word substr(text, ++i, 1)
            else word = word c
        } else if (c == "\"" || c == "'") { quote = c; started = 1 }
        else if (c == "\\") { word = word substr(text, ++i, 1); started = 1 }
        else if (c == " " || c == "\t") {
            if (started) words[++n] = word
            word = ""; started = 0
        } else if (c == "#" && !started) break
        else { word = word c; started = 1 }
    }
    if (quote != "") { problem(NR, "a quote is not closed"); return 0 }
    if (started) words[++n] = word
    return n
}

function kind_of(command, option,    n, i, specs) {
    n = split(S[command], specs, " ")
    for (i = 1; i <= n; i++) {
        if (specs[i] == option || specs[i] == "*") return "flag"
        if (specs[i] == option "=") return "value"
        if (specs[i] == option "?") return "optional"
    }
    return ""
}

# Fills O (options) and A (arguments) from W, the words of a line. Returns 0 after a problem.
function options(command, n,    i, word, name, value, has, kind) {
    split("", O); split("", A); args = 0
    for (i = 2; i <= n; i++) {
        word = W[i]
        if (substr(word, 1, 2) != "--") { A[++args] = word; continue }
        has = index(word, "=")
        name = has ? substr(word, 3, has - 3) : substr(word, 3)
        value = has ? substr(word, has + 1) : ""
        kind = kind_of(command, name)
        if (kind == "" || (kind == "flag" && has && S[command] != "*")) {
            problem(NR, "unsupported option '--" name "' of '" command "'")
            return 0
        }
        if (kind == "value" && !has) {
            if (i == n) { problem(NR, "option '--" name "' of '" command "' needs a value"); return 0 }
            value = W[++i]
        } else if (kind != "value" && !has) value = "1"
        O[name] = value
    }
    return 1
}

# A row of a table. A value that could break the row is a problem, never a broken row.
function row(table, text,    i) {
    if (text ~ /[\001-\010\013-\037]/) problem(NR, "a control character in '" W[1] "'")
    print text > (out "/" table)
}

function clean(value) {
    if (index(value, FIELD)) problem(NR, "'|' cannot be used in '" W[1] "'")
    return value
}

function number(value, what) {
    if (value != "" && value !~ /^[0-9]+$/) problem(NR, what " of '" W[1] "' is not a number: " value)
    return value
}

function need(condition, what) {
    if (!condition) problem(NR, "'" W[1] "' needs " what)
    return condition
}

function volume_type(mount, fstype,    type) {
    type = fstype
    if (mount == "swap") type = "swap"
    else if (mount == "biosboot") type = "biosboot"
    else if (mount ~ /^pv\./) type = "pv"
    else if (type == "") type = mount == "/boot/efi" ? "efi" : "ext4"
    if (type !~ /^(ext2|ext3|ext4|xfs|vfat|efi|swap|biosboot|pv)$/)
        problem(NR, "unsupported file system '" type "' in '" W[1] "'")
    return type
}

function check_mount(mount) {
    if (mount !~ /^(\/[A-Za-z0-9._\/-]*|swap|biosboot|pv\.[A-Za-z0-9_-]+)$/) {
        problem(NR, "unsupported mount point '" mount "' in '" W[1] "'")
        return 0
    }
    if (mount ~ /^\// && (mount in mounts)) problem(NR, "'" mount "' is already used in line " mounts[mount])
    mounts[mount] = NR
    return 1
}

function check_size(mount) {
    if (O["size"] == "" && !("recommended" in O) && !("percent" in O))
        problem(NR, "'" W[1] " " mount "' needs --size or --recommended")
    if (("recommended" in O) && mount != "swap")
        problem(NR, "--recommended is only understood for swap, not for '" mount "'")
    number(O["size"], "--size"); number(O["maxsize"], "--maxsize")
}

function partition(    mount, type, disk) {
    if (!need(args == 1, "one mount point")) return
    mount = A[1]
    if (!check_mount(mount)) return
    type = volume_type(mount, O["fstype"])
    check_size(mount)
    disk = O["ondisk"] != "" ? O["ondisk"] : O["ondrive"]
    sub(/^\/dev\//, "", disk)
    if (type == "pv") pvs[mount] = NR
    row("parts", mount FIELD O["size"] FIELD O["grow"] FIELD type FIELD O["recommended"] FIELD \
        clean(disk) FIELD O["asprimary"] FIELD clean(O["label"]) FIELD clean(O["fsoptions"]) FIELD \
        O["maxsize"] FIELD NR)
}

function volgroup(    i, list) {
    if (!need(args >= 2, "a name and its physical volumes")) return
    if (A[1] !~ /^[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$/) problem(NR, "unsupported volume group name '" A[1] "'")
    for (i = 2; i <= args; i++) {
        if (!(A[i] in pvs)) problem(NR, "volume group '" A[1] "': no partition '" A[i] "' before this line")
        list = list (i > 2 ? " " : "") A[i]
    }
    number(O["pesize"], "--pesize")
    groups[A[1]] = NR
    # anaconda counts the extent in KiB: https://pykickstart.readthedocs.io (volgroup --pesize)
    row("volgroups", A[1] FIELD list FIELD O["pesize"] FIELD NR)
}

function logvol(    mount, type) {
    if (!need(args == 1, "one mount point")) return
    mount = A[1]
    if (!check_mount(mount)) return
    if (mount == "/boot" || mount == "/boot/efi" || mount ~ /^(pv\.|biosboot)/)
        problem(NR, "'" mount "' cannot be a logical volume")
    type = volume_type(mount, O["fstype"])
    check_size(mount); number(O["percent"], "--percent")
    if (O["name"] !~ /^[A-Za-z0-9+_.][A-Za-z0-9+_.-]*$/) problem(NR, "'logvol " mount "' needs a valid --name")
    if (!(O["vgname"] in groups)) problem(NR, "logvol '" mount "': no volume group '" O["vgname"] "' before this line")
    row("logvols", mount FIELD O["size"] FIELD O["grow"] FIELD type FIELD O["recommended"] FIELD \
        O["name"] FIELD O["vgname"] FIELD clean(O["fsoptions"]) FIELD O["maxsize"] FIELD \
        O["percent"] FIELD NR)
}

function address(value, what) {
    if (value != "" && value !~ /^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$/)
        problem(NR, "network --" what ": not an IPv4 address: " value)
}

function network(    proto, servers) {
    proto = O["bootproto"] == "" ? "dhcp" : O["bootproto"]
    if (proto !~ /^(dhcp|static)$/) problem(NR, "unsupported network --bootproto=" proto)
    if (proto == "static" && (O["ip"] == "" || O["netmask"] == ""))
        problem(NR, "network --bootproto=static needs --ip and --netmask")
    address(O["ip"], "ip"); address(O["netmask"], "netmask"); address(O["gateway"], "gateway")
    servers = O["nameserver"]
    if (servers !~ /^[0-9A-Fa-f.:,]*$/) problem(NR, "network --nameserver: not addresses: " servers)
    gsub(/,/, " ", servers)
    if (O["hostname"] != "") {
        if (O["hostname"] !~ /^[A-Za-z0-9][A-Za-z0-9.-]*$/) problem(NR, "network --hostname: not a host name")
        scalar("hostname", O["hostname"])
        if (!("bootproto" in O) && !("device" in O)) return
    }
    if (O["device"] !~ /^[A-Za-z0-9._:-]*$/) problem(NR, "network --device: not a device name")
    if (O["ipv6"] != "" && O["ipv6"] != "auto") problem(NR, "unsupported network --ipv6=" O["ipv6"])
    row("networks", proto FIELD O["device"] FIELD O["ip"] FIELD O["netmask"] FIELD O["gateway"] \
        FIELD servers FIELD O["noipv6"] FIELD O["onboot"])
}

# a crypt(3) hash, or "" ; plain text is hashed by the target's own chpasswd
function check_hash(value) {
    if (value !~ /^([$][A-Za-z0-9]+[$].+|[*!].*)$/) problem(NR, "the hash of '" W[1] "' is not a crypt(3) hash")
}

function user() {
    if (!need(O["name"] ~ /^[a-z_][a-z0-9_-]*$/, "a valid --name")) return
    if (O["password"] ~ /[[:cntrl:]:]/) problem(NR, "the password of 'user' has a ':' or a control character")
    if ("iscrypted" in O) check_hash(O["password"])
    printf "%s", O["password"] > (out "/password." O["name"])
    gsub(/,/, " ", O["groups"])
    if (O["groups"] !~ /^[a-z0-9_ -]*$/) problem(NR, "user --groups: not group names")
    if (O["shell"] !~ /^(\/[A-Za-z0-9\/._-]+)?$/) problem(NR, "user --shell: not a path")
    number(O["uid"], "--uid")
    if ("homedir" in O) problem(NR, "unsupported option '--homedir' of 'user'")
    row("users", O["name"] FIELD O["groups"] FIELD (O["password"] == "" ? "none" : \
        (("iscrypted" in O) ? "hash" : "plain")) FIELD O["shell"] FIELD O["lock"] FIELD O["uid"] \
        FIELD clean(O["gecos"]))
}

function rootpw() {
    if ("allow-ssh" in O) problem(NR, "unsupported option '--allow-ssh' of 'rootpw'")
    if (args > 1) problem(NR, "'rootpw' takes one password")
    if ("lock" in O) scalar("rootpw_mode", "lock")
    else if (!need(args == 1, "a password, a hash or --lock")) return
    else if ("iscrypted" in O) { check_hash(A[1]); scalar("rootpw_mode", "hash") }
    else scalar("rootpw_mode", "plain")
    if (args && A[1] ~ /[[:cntrl:]:]/) problem(NR, "the password of 'rootpw' has a ':' or a control character")
    if (args) scalar("rootpw", A[1])
}

function sshkey() {
    if (!need(args == 1 && A[1] ~ /^[a-z0-9@.-]+ [A-Za-z0-9+\/=]+( .*)?$/, "one public key in quotes")) return
    if (O["username"] == "") O["username"] = "root"
    if (O["username"] !~ /^[a-z_][a-z0-9_-]*$/) problem(NR, "sshkey --username: not a user name")
    row("sshkeys", O["username"] FIELD clean(A[1]))
}

function services(    i, n, list, which, key) {
    for (key in O) {
        n = split(O[key], list, ",")
        for (i = 1; i <= n; i++) {
            gsub(/ /, "", list[i])
            if (list[i] !~ /^[A-Za-z0-9@._:-]+$/) problem(NR, "services: not a unit name: " list[i])
            row("services", (key == "enabled" ? "enable" : "disable") FIELD list[i])
        }
    }
}

function bootloader() {
    if (O["location"] !~ /^(|mbr|partition|boot|none)$/) problem(NR, "unsupported bootloader --location=" O["location"])
    if (O["location"] != "" && O["location"] !~ /^(mbr|boot)$/) problem(NR, "unsupported bootloader --location=" O["location"])
    if ("password" in O) problem(NR, "unsupported option '--password' of 'bootloader'")
    number(O["timeout"], "--timeout")
    scalar("append", O["append"]); scalar("timeout", O["timeout"])
}

function disks(value) {
    gsub(/\/dev\//, "", value); gsub(/,/, " ", value)
    if (value !~ /^[A-Za-z0-9 ]*$/) problem(NR, "not disk names in '" W[1] "': " value)
    return value
}

function clearpart() {
    if ("list" in O) problem(NR, "unsupported option '--list' of 'clearpart'")
    if (O["disklabel"] !~ /^(gpt|msdos|dos|)$/) problem(NR, "unsupported clearpart --disklabel=" O["disklabel"])
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
    scalar("url", O["url"])
}

function repo() {
    if (!need(O["name"] != "" && O["baseurl"] ~ /^https?:\/\/[^ |'"\\]+$/, "--name and --baseurl")) return
    row("repos", clean(O["name"]) FIELD O["baseurl"])
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
}

function command(name) {
    if (name in INERT) {
        if (name !~ /^(text|cmdline|install|skipx)$/) note("'" name "' has no effect on Debian")
    }
    else if (name == "url") url()
    else if (name == "repo") repo()
    else if (name == "lang") language()
    else if (name == "keyboard") keyboard()
    else if (name == "timezone") timezone()
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
    else if (name ~ /^(reboot|poweroff|shutdown|halt)$/)
        scalar("final", name == "shutdown" ? "poweroff" : name)
}

function open_section(name,    n) {
    if (!(name in S)) {
        problem(NR, "unsupported section '" name "'")
        section = "skip"
        return
    }
    section = substr(name, 2); opened = NR
    if (!options(name, words_in_line)) return
    if (section == "packages") return
    script = ++scripts
    body = out "/script." script
    printf "" > body
    row("scripts", section FIELD script FIELD NR FIELD \
        clean(O["interpreter"] == "" ? "/bin/sh" : O["interpreter"]) FIELD O["nochroot"] FIELD \
        clean(O["log"]) FIELD O["erroronfail"])
}

function package(name,    sign) {
    sub(/[ \t]*#.*/, "", name); gsub(/^[ \t]+|[ \t]+$/, "", name)
    if (name == "") return
    sign = "+"
    if (name ~ /^-/) { sign = "-"; name = substr(name, 2) }
    if (name ~ /^@/) {
        if (name !~ /^@(\^.*|core|Core|base|Base|standard)$/) problem(NR, "unsupported package group '" name "'")
        else note("package group '" name "' is what the image holds anyway")
        return
    }
    if (name !~ /^[a-z0-9][a-z0-9+.:-]*$/) { problem(NR, "not a Debian package name: '" name "'"); return }
    row("packages", sign name)
}

{ sub(/\r$/, "") }

/^# goldimg-report: / { scalar("report", $3) }

section != "" {
    if ($1 == "%end") { if (body != "") close(body); body = ""; section = ""; next }
    if (section == "packages") package($0)
    else if (section != "skip") print > body
    next
}

/^[ \t]*(#|$)/ { next }

{
    words_in_line = split_words($0, W)
    if (!words_in_line) next
    if (W[1] ~ /^%/) { open_section(W[1]); next }
    if (!(W[1] in S)) { problem(NR, "unsupported command '" W[1] "'"); next }
    if (options(W[1], words_in_line)) command(W[1])
}

END {
    if (section != "" && section != "skip") problem(opened, "section '%" section "' has no %end")
    if (!("/" in mounts)) problem(NR, "no root file system: add 'part /' or 'logvol /'")
    exit failed
}

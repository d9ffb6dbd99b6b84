# Reads a kickstart and writes what it asks for as small tables that install.sh reads.
#
#   awk -v out=DIR [-v expand=1] -f parse.awk -f commands.awk KICKSTART
#
# Exit 1: DIR/errors says line and name of each problem. Without `expand`, %include stays open and
# what an included file may bring (a root, physical volumes) is not missed: the %pre that writes it
# has not run. With it, `%include /tmp/goldimg-NAME.ks` is read, below the directory `root` if set.
#
# DIR/scalars.sh   KS_name='value' for what can be given once
# DIR/parts        mount|MiB|grow|fstype|recommended|disk|primary|label|options|maximum|line
#                  line, here and below: 12, or 12 (/tmp/goldimg-disk.ks:3) of an included file
# DIR/volgroups    name|physical volumes|MiB of an extent|line
# DIR/logvols      mount|MiB|grow|fstype|recommended|name|group|options|maximum|percent|line
# DIR/networks     bootproto|device|ip|netmask|gateway|nameservers|noipv6|onboot|noipv4|ipv6|gateway6|
#                  mtu|vlan id|name of the vlan|members of the bond|its options|line
# DIR/users        name|groups|mode|shell|lock|uid|comment     the password is in DIR/password.NAME
# DIR/sshkeys      user|key
# DIR/services     enable or disable|unit
# DIR/repos        name|url|proxy
# DIR/packages     +name or -name
# DIR/includes     path of each %include
# DIR/scripts      pre or post|number|line|interpreter|nochroot|log|erroronfail  body: DIR/script.N
# DIR/notes        what was accepted and has no effect on Debian
#
# The syntax is that of https://pykickstart.readthedocs.io/en/latest/kickstart-docs.html ; what is
# not in the tables below is refused, because a half-understood answer file wipes a disk.

BEGIN {
    # command -> its options; "=" takes a value, "?" may, none is a flag
    S["text"] = S["cmdline"] = S["graphical"] = S["skipx"] = S["zerombr"] = S["install"] = ""
    S["url"] = "url= proxy="
    S["repo"] = "name= baseurl= install proxy="
    S["lang"] = "addsupport="
    S["keyboard"] = "vckeymap= xlayouts= switch="
    S["timezone"] = "utc isUtc nontp ntpservers="
    S["timesource"] = "ntp-server= ntp-pool= ntp-disable nts"
    S["network"] = "bootproto= device= ip= netmask= gateway= nameserver= hostname= activate onboot? " \
        "noipv6 noipv4 ipv6= ipv6gateway= mtu= vlanid= interfacename= bondslaves= bondopts="
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
        "authconfig eula logging", words, " ")
    for (i in words) INERT[words[i]] = 1
    S["%packages"] = "nobase excludedocs instLangs= inst-langs= ignoremissing ignorebroken " \
        "exclude-weakdeps nocore retries= timeout="
    S["%pre"] = "interpreter= log= erroronfail"
    S["%post"] = "nochroot interpreter= log= erroronfail"
    BOND_MODES = "=([0-6]|balance-rr|active-backup|balance-xor|broadcast|802.3ad|balance-tlb|balance-alb)$"
    split("mode miimon updelay downdelay lacp_rate xmit_hash_policy primary fail_over_mac arp_interval " \
        "arp_ip_target ad_select min_links", words, " ")
    for (i in words) BOND[words[i]] = 1
    INCLUDABLE = "^/tmp/goldimg-[A-Za-z0-9_-]+[.]ks$"
    FIELD = "|"
    section = ""
    split("errors scalars.sh parts volgroups logvols networks users sshkeys services repos " \
        "packages scripts includes notes", words, " ")
    for (i in words) printf "" > (out "/" words[i])
}

function problem_at(place, text) {
    printf "line %s: %s\n", place, text > (out "/errors")
    failed = 1
}

function problem(text) { problem_at(AT, text) }

function note(text) { printf "line %s: %s\n", AT, text > (out "/notes") }

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
    if (quote != "") { problem("a quote is not closed"); return 0 }
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
            problem("unsupported option '--" name "' of '" command "'")
            return 0
        }
        if (kind == "value" && !has) {
            if (i == n) { problem("option '--" name "' of '" command "' needs a value"); return 0 }
            value = W[++i]
        } else if (kind != "value" && !has) value = "1"
        O[name] = value
    }
    return 1
}

# A row of a table. A value that could break the row is a problem, never a broken row.
function row(table, text,    i) {
    if (text ~ /[\001-\010\013-\037]/) problem("a control character in '" W[1] "'")
    print text > (out "/" table)
}

function clean(value) {
    if (index(value, FIELD)) problem("'|' cannot be used in '" W[1] "'")
    return value
}

function number(value, what) {
    if (value != "" && value !~ /^[0-9]+$/) problem(what " of '" W[1] "' is not a number: " value)
    return value
}

function need(condition, what) {
    if (!condition) problem("'" W[1] "' needs " what)
    return condition
}

function open_section(name,    n) {
    if (!(name in S)) {
        problem("unsupported section '" name "'")
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
        if (name !~ /^@(\^.*|core|Core|base|Base|standard)$/) problem("unsupported package group '" name "'")
        else note("package group '" name "' is what the image holds anyway")
        return
    }
    if (name !~ /^[a-z0-9][a-z0-9+.:-]*$/) { problem("not a Debian package name: '" name "'"); return }
    row("packages", sign name)
}

# An included file holds commands. A missing one is told at the end, when every %pre was read.
function include(path,    line, got, n) {
    if (path !~ INCLUDABLE) {
        problem("%include: only /tmp/goldimg-NAME.ks, written by a %pre, is understood, not '" path "'")
        return
    }
    print path > (out "/includes")
    if (!expand) { lenient = 1; return }
    including = 1
    while ((got = (getline line < (root path))) > 0) {
        AT = NR " (" path ":" (++n) ")"
        sub(/\r$/, "", line)
        if (line !~ /^[ \t]*(#|$)/) command_line(line)
    }
    including = 0
    close(root path)
    AT = NR
    if (got < 0) { missing[path] = NR; lenient = 1 }
}

# Which %pre names which file: who could have written it.
function remember_files(line) {
    while (match(line, /\/tmp\/goldimg-[A-Za-z0-9_-]+\.ks/)) {
        maker[substr(line, RSTART, RLENGTH)] = opened
        line = substr(line, RSTART + RLENGTH)
    }
}

function missing_file(path) {
    problem_at(missing[path], "%include " path ": no such file" \
        (path in maker ? "; the %pre of line " maker[path] " should have written it" : \
        ", and no %pre writes it"))
}

function command_line(text) {
    words_in_line = split_words(text, W)
    if (!words_in_line) return
    if (including && W[1] ~ /^%/) problem("an included file cannot have '" W[1] "'")
    else if (W[1] == "%include") { if (need(words_in_line == 2, "one path")) include(W[2]) }
    else if (W[1] ~ /^%/) open_section(W[1])
    else if (!(W[1] in S)) problem("unsupported command '" W[1] "'")
    else if (options(W[1], words_in_line)) command(W[1])
}

{ sub(/\r$/, ""); AT = NR }

/^# goldimg-report: / { scalar("report", $3) }

section != "" {
    if ($1 == "%end") { if (body != "") close(body); body = ""; section = ""; next }
    if (section == "packages") package($0)
    else if (section != "skip") print > body
    if (section == "pre") remember_files($0)
    next
}

/^[ \t]*(#|$)/ { next }

{ command_line($0) }

END {
    if (section != "" && section != "skip") problem_at(opened, "section '%" section "' has no %end")
    for (path in missing) missing_file(path)
    AT = NR
    if (!("/" in mounts) && !lenient)
        problem("no root file system: add 'part /' or 'logvol /'")
    finish_scalars()
    exit failed
}

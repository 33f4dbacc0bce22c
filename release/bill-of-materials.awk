# Writes a CycloneDX bill of materials: of what is in the binary, from Cargo.lock and what `cargo tree` says (./x has how it
# is called). It has no time, no path and no number of its own, so that the same sources and tools give the same bill.

function component(type, id, name, version, licence, more) {
    return sprintf("{\"type\": \"%s\", \"bom-ref\": \"%s\", \"name\": \"%s\", \"version\": \"%s\", " \
        "\"licenses\": [{\"expression\": \"%s\"}]%s}", type, id, name, version, licence, more)
}
/["\\]/ && FNR != NR { print "x: cannot write this as JSON: " $0 >"/dev/stderr"; failed = 1; exit 1 }
# Cargo.lock comes first, for the checksums.
FNR == NR && /^name = /     { split($0, part, "\""); name = part[2] }
FNR == NR && /^version = /  { split($0, part, "\""); version = part[2] }
FNR == NR && /^checksum = / { split($0, part, "\""); checksum[name "@" version] = part[2] }
FNR == NR { next }
{
    # DEPTH NAME vVERSION [PATH] [(*)]
    match($1, /^[0-9]+/)
    depth = substr($1, 1, RLENGTH) + 0
    split(substr($1, RLENGTH + 1), part, " ")
    id = part[1] "@" substr(part[2], 2)
    at[depth] = id
    if (depth > 0) uses[at[depth - 1]] = uses[at[depth - 1]] "\n" id
    if (id in seen) next
    seen[id] = 1
    order[++count] = id
    licence = $2
    sub(/ \(\*\)$/, "", licence)
    gsub(/\//, " OR ", licence)
    if (licence == "") { print "x: " id " has no licence" >"/dev/stderr"; failed = 1; exit 1 }
    more = ", \"purl\": \"pkg:cargo/" id "\""
    if (id in checksum) more = more ", \"hashes\": [{\"alg\": \"SHA-256\", \"content\": \"" checksum[id] "\"}]"
    else if (part[3] == "") { print "x: " id " has no checksum" >"/dev/stderr"; failed = 1; exit 1 }
    text[id] = component(depth == 0 ? "application" : "library", id, part[1], substr(part[2], 2), licence, more)
}
END {
    if (failed || count == 0) exit 1
    print "{\"bomFormat\": \"CycloneDX\", \"specVersion\": \"1.5\", \"version\": 1,"
    print " \"metadata\": {\"component\": " text[order[1]] ","
    print "  \"properties\": [{\"name\": \"egret:target\", \"value\": \"" target "\"}]},"
    print " \"components\": ["
    for (i = 2; i <= count; i++) print "  " text[order[i]] ","
    # What no Cargo.lock knows of: all that a static binary has from its C library and compilers.
    print "  " component("library", "rust-std", "rust-std", rust, "MIT OR Apache-2.0", "") ","
    print "  " component("library", "glibc", "glibc", libc, "LGPL-2.1-or-later", "") ","
    print "  " component("library", "libgcc", "libgcc", cc, "GPL-3.0-or-later WITH GCC-exception-3.1", "")
    print " ],"
    print " \"dependencies\": ["
    for (i = 1; i <= count; i++) {
        id = order[i]
        on = ""
        if (i == 1) uses[id] = uses[id] "\nrust-std\nglibc\nlibgcc"
        n = split(substr(uses[id], 2), list, "\n")
        delete had
        for (j = 1; j <= n; j++) if (!(list[j] in had)) {
            had[list[j]] = 1
            on = on (on == "" ? "" : ", ") "\"" list[j] "\""
        }
        print "  {\"ref\": \"" id "\", \"dependsOn\": [" on "]}" (i < count ? "," : "")
    }
    print " ]}"
}

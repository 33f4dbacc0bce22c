use proptest::prelude::*;

use crate::{Policy, PolicyErrors};

fn errors(text: impl AsRef<[u8]>) -> PolicyErrors {
    match Policy::parse("p.yaml", text.as_ref()) {
        Ok(_) => panic!("valid: {}", String::from_utf8_lossy(text.as_ref())),
        Err(errors) => errors,
    }
}

/// Each text, and what its errors say: line, column and message.
#[test]
fn what_is_wrong_is_named_with_its_place() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("",                                           &["1:1 the policy is empty"]),
        ("# nothing\n",                                &["1:1 the policy is empty"]),
        ("allow: [a.b]",                               &["1:1 the policy has no `version`"]),
        ("- a.b",                                      &["1:1 a policy is a mapping"]),
        ("version: 2",                                 &["1:10 this version of the policy language is not known"]),
        ("version: '1'",                               &["1:10 `version` has to be a number"]),
        ("version: 1\nversion: 1",                     &["2:1 `version` stands here twice"]),
        ("version: 1\nalow: [a.b]\nx: 1",              &["2:1 a policy has no key `alow`", "3:1 a policy has no key `x`"]),
        ("version: 1\nallow:",                         &["2:6 `allow` is empty"]),
        ("version: 1\nallow: []",                      &["2:8 `allow` is empty"]),
        ("version: 1\nallow: a.b",                     &["2:8 `allow` has to be a list"]),
        ("version: 1\nallow: ['a.b:0', a.b:65536, 'a.b:007']", &["2:14 `0` is not a port", "2:22 `65536` is not a port", "2:34 `007` is not a port"]),
        ("version: 1\nallow: ['a.b:']",                  &["2:14 a port is missing"]),
        ("version: 1\nallow: [{host: a.b, ports: [0, 80.5, '80', null]}]", &["2:29 `0` is not a port", "2:32 `80.5` is not a port", "2:38 a port is a number", "2:44 a port is a number"]),
        ("version: 1\nallow: [{host: a.b, ports: []}]", &["2:28 `ports` is empty"]),
        ("version: 1\nallow: [10.0.0.1/8]",            &["2:9 `10.0.0.1/8` has host bits set"]),
        ("version: 1\nallow: [10.0.0.0/33]",           &["2:18 this is not a prefix length"]),
        ("version: 1\nallow: ['*.com']",               &["2:10 `*.com` would match every domain registered under `com`"]),
        ("version: 1\nallow: [a-*.co.uk, .de]",        &["2:9 `a-*.co.uk` would match every domain registered under `co.uk`", "2:20 `.de` would match every domain registered under `de`"]),
        ("version: 1\nallow: ['**']",                  &["2:10 `**` would match every name there is"]),
        ("version: 1\nallow: ['a.**.b.example', '*a*.b.example', a.b*.example]", &["2:12 `a.**.b.example` is not a host pattern", "2:28 `*a*.b.example` is not a host pattern", "2:46 `a.b*.example` is not a host pattern"]),
        ("version: 1\nallow: [0x7f.1.1]",              &["2:9 `0x7f.1.1` is not an IP address"]),
        ("version: 1\nallow: [127.0.0.1, 169.254.169.254, '::1', 224.0.0.0/8, 172.17.0.1]", &[
            "2:9 `127.0.0.1` can never be allowed", "2:20 `169.254.169.254` can never be allowed", "2:38 `::1` can never be allowed",
            "2:44 `224.0.0.0/8` can never be allowed", "2:57 `172.17.0.1` is the host, which no address opens"]),
        ("version: 1\nallow: [localhost, a.localhost, '**.localhost', metadata.goog]", &[
            "2:9 `localhost` cannot be allowed", "2:20 `a.localhost` cannot be allowed", "2:34 `**.localhost` cannot be allowed", "2:49 `metadata.goog` cannot be allowed"]),
        ("version: 1\nallow: [{host: a.b, addresses: [127.0.0.0/8, 'fe80::/64', '0.0.0.0', '::ffff:127.0.0.1']}]", &[
            "2:33 `127.0.0.0/8` can never be allowed", "2:47 `fe80::/64` can never be allowed", "2:60 `0.0.0.0` can never be allowed", "2:71 `::ffff:127.0.0.1` can never be allowed"]),
        ("version: 1\ndeny: [{host: a.b, addresses: [10.0.0.0/8]}]", &["2:31 `addresses` grants, so it has no meaning under `deny`"]),
        ("version: 1\nallow: [{host: a.b, address: 1.1.1.1}]", &["2:21 an entry has `host` or `address`, not both"]),
        ("version: 1\nallow: [{hosts: a.b}]",          &["2:10 the entry has neither `host` nor `address`"]),
        ("version: 1\nallow: [{host: 'a.b:443'}]",     &["2:20 in the long form the port has its own key"]),
        ("version: 1\nallow: [{host: 1.1.1.1}]",       &["2:16 this is an address, not a name"]),
        ("version: 1\nallow: [{address: a.b}]",        &["2:19 `a.b` is not an IP address"]),
        ("version: 1\nallow: [{host: a.b, http: [get /v1/**, 'GET /a/../b', '/x', readonly, 'GET /é{']}]", &["2:28 `get` is not a method", "2:48 `/a/../b` is not the path of a request", "2:56 a request has a method and a path", "2:61 a request has a method and a path", "2:77 `/é{` is not the path of a request"]),
        ("version: 1\nallow: [{host: a.b, by: [curl, /usr/bin/, /a//b]}]", &["2:26 `curl` does not name an executable", "2:40 `/usr/bin/` does not name an executable", "2:46 `/a//b` does not name an executable"]),
        ("version: 1\nallow: [{host: a.b, under: curl, by: [], http: []}]", &["2:28 `under` has to be a list", "2:38 `by` is empty", "2:48 `http` is empty"]),
        ("version: 1\nallow: [{host: a.b, addresses: [10.0.0.1], only_addresses: [10.0.0.2]}, {host: a.c, only_addresses: []}]", &["2:60 an entry has `addresses` or `only_addresses`, not both", "2:101 `only_addresses` is empty"]),
        ("version: 1\nallow: [{host: a.b, http: {GET: /x}}]", &["2:27 `http` has to be a list"]),
        ("version: 1\nallow: [{host: a.b, ports: all}, {host: a.c, ports: any}]", &["2:28 `ports` has to be a list"]),
        ("version: 1\ndeny: [{address: 9.0.0.0/8, http: [full]}]", &["2:35 under `deny`, `http` needs a `host`"]),
        ("version: 1\ndefault: off",                   &["2:10 `off` is not a default"]),
        ("version: 1\ndefault: allow-public:443,0",    &["2:27 `0` is not a port"]),
        ("version: 1\ndefault: 'allow-public:'",       &["2:24 a port is missing"]),
        ("version: 1\ndefault: false",                 &["2:10 `false` is not a default"]),
        ("version: 1\nname: 7",                        &["2:7 `name` has to be a text"]),
        ("version: 1\nname: \"a\\u001bb\"",            &["2:7 this cannot name a policy"]),
        ("version: 1\nhost_gateway: 80",               &["2:15 this does not say what is open of the host"]),
        ("version: 1\nhost_gateway: no",               &["2:15 this does not say what is open of the host"]),
        ("version: 1\nhost_gateway: []",               &["2:15 `host_gateway` is empty"]),
        ("version: 1\nfilesystem: {read: [], rite: [a]}", &["2:20 `read` is empty", "2:24 `filesystem` has no key `rite`"]),
        ("version: 1\ntests: [{allow: a.b, deny: a.b}, {deny: 'a.b:0'}]", &["2:9 a test has one `allow` or one `deny`", "2:41 this is not a destination"]),
        ("version: 1\ntests: [{by: /x}, {allow: a.b, by: x, request: GET, resolves_to: [a.b]}, {allow: a.b, port: 1}]", &["2:9 a test has one `allow` or one `deny`", "2:36 this names no executable", "2:48 a request has a method and a path", "2:67 this is not an IP address", "2:87 a test has no key `port`"]),
        // YAML that policies have no use for, and YAML that is none.
        ("version: 1\nallow: &a [a.b]\ndeny: *a",      &["2:11 YAML anchors and aliases cannot be used in a policy", "3:7 YAML anchors and aliases cannot be used in a policy", "3:7 `deny` is empty"]),
        ("version: 1\n<<: {allow: [a.b]}",             &["2:1 a policy has no key `<<`"]),
        ("version: 1\nallow: [!!str a.b]",             &["2:15 YAML tags have no meaning in a policy"]),
        ("version: 1\nallow:\n  - *.b.example\n  - host: **.c.example\n  - *.com\n  - a..b", &[
            "3:5 a text that begins with `*` needs quotes", "4:11 a text that begins with `*` needs quotes", "5:5 a text that begins with `*` needs quotes",
            "5:5 `*.com` would match every domain registered under `com`", "6:5 `a..b` is not a host pattern"]),
        ("version: 1\nallow: [*]",                     &["2:9 a text that begins with `*` needs quotes"]),
        ("version: 1\n*.a.b: 1",                       &["2:1 a text that begins with `*` needs quotes"]),
        ("version: 1\nallow: [&a.b, !c.d, e..f]",      &["2:9 a text that begins with `&` needs quotes", "2:15 a text that begins with `!` needs quotes", "2:21 `e..f` is not a host pattern"]),
        ("version: 1\nallow: [@a.b]",                  &["2:9 a text that begins with `@` needs quotes"]),
        ("version: 1\nallow: [`a.b`]",                 &["2:9 a text that begins with a backtick needs quotes"]),
        ("version: 1\nallow:\n  - %a.b",               &["3:5 a text that begins with `%` needs quotes"]),
        ("version: 1\nallow:\n\t- a.b",                &["3:1 YAML is not indented with tabs"]),
        ("version: 1\n\n\tallow: [a.b]",              &["3:1 YAML is not indented with tabs"]),
        ("{\n\t\"allow\": [\"a\" \"b\"]}",             &["2:16 this is not YAML: invalid trailing content after double-quoted scalar"]),
        ("version: 1\n---\nversion: 1",                &["2:1 a policy is one document"]),
    ];
    for (text, expected) in table {
        let errors = errors(text);
        let said = errors
            .errors()
            .iter()
            .map(|error| format!("{}:{} {}", error.line(), error.column(), error.message()));
        assert_eq!(said.collect::<Vec<_>>(), *expected, "{text}");
    }
}

#[test]
fn text_that_no_policy_can_be_is_refused_without_fuss() {
    let deep = "[".repeat(100_000);
    let bomb = "a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n".repeat(1000);
    let texts: [&[u8]; 8] = [
        b"version: 1\n\tname: x",
        b"version: 1\nname: \xff",
        b"\xff\xfe\x00",
        b"version: 1\nallow: [",
        b"version: 1\nallow: \"",
        b"%YAML 1.1\n---\nversion: 1",
        deep.as_bytes(),
        bomb.as_bytes(),
    ];
    for text in texts {
        let shown = errors(text).to_string();
        assert!(
            shown.starts_with("error: ") && shown.contains("p.yaml:") && shown.len() < 200_000,
            "{shown}"
        );
    }
    let many = format!("version: 1\nallow:\n{}", "- a..b\n".repeat(100_000));
    let errors = errors(many);
    assert_eq!((errors.errors().len(), errors.count()), (100, 100_000));
}

/// Each text, and what to do about its first error.
#[test]
fn what_is_wrong_comes_with_what_to_do() {
    #[rustfmt::skip]
    let table: &[(&str, &str)] = &[
        ("version: \"1\"",                                "write `version: 1`, without quotes"),
        ("version: 1\nallow: [a.b, *.c.example:443]",     "write `\"*.c.example:443\"`"),
        ("version: 1\nallow:\n  - a.b\n\t- c.d",          "indent with spaces"),
        ("version: 1\nallow: [api.example.com: 443]",     "an entry has no space after the colon: `api.example.com:443`"),
        ("version: 1\nallow: [{hosts: a.b}]",             "did you mean `host`?"),
        ("version: 1\nallow: ['a.b,c.d']",                "write an entry for each host"),
        ("version: 1\nallow: ['a.b:443,c.d:443']",        "write an entry for each host"),
        ("version: 1\ndeny:\n  host: x",                  "begin each item with `- `:\n- host: …"),
        ("version: 1\ndeny:\n  host: x\n  ports: [1]",   "begin the item with `- `, and line its keys up:\n- host: …\n  ports: …"),
        ("version: 1\ndeny: {host: x}",                   "put it in brackets: `[{host: x}]`"),
        ("version: 1\nallow: a.b:80,443",                 "put it in brackets: `[\"a.b:80,443\"]`"),
        ("version: 1\nallow: a.b, c.d",                   "put it in brackets: `[a.b, c.d]`"),
        ("version: 1\nallow: ['127.0.0.1:3000']",         "a service on the host that runs the sandbox is `host.docker.internal`, opened by `host_gateway: [PORT]` or --allow-docker-gateway=PORT"),
        ("version: 1\nallow: [{host: a.b, http: {GET: /x}}]", "write `[\"GET /x\"]`"),
        ("version: 1\nallow: [{host: a.b, http: GET /x}]",   "put it in brackets: `[GET /x]`"),
        ("version: 1\nallow: [{host: a.b, http: [{method: GET, path: /x}]}]", "write `GET /x`"),
        ("version: 1\nallow: [{host: a.b, by: [{path: /x}]}]", "write `/x`"),
        // Words that mean everything, or nothing.
        ("version: 1\nallow: all",                        "every public destination is `default: allow-public`"),
        ("version: 1\nallow: none",                       "leave it out: what no entry allows is denied already"),
        ("version: 1\ndeny: '*'",                         "leave it out: what no entry allows is denied already"),
        ("version: 1\ndefault: Deny",                     "did you mean `deny`?"),
        ("version: 1\ndefault: public",                   "`deny` refuses what no entry allows; `allow-public` allows every public destination"),
        ("version: 1\ndefault: true",                     "`deny` refuses what no entry allows; `allow-public` allows every public destination"),
        ("version: 1\ndefault: allow-public:any",         "every port is `allow-public` alone"),
        ("version: 1\nhost_gateway: any",                 "`host_gateway: allow` opens every port of it, `[5432]` this one, and `deny` none"),
        ("version: 1\nhost_gateway: [true]",              "`host_gateway: allow` opens every port of it, `[5432]` this one, and `deny` none"),
        ("version: 1\nhost_gateway: no",                  "`host_gateway: allow` opens every port of it, `[5432]` this one, and `deny` none"),
        ("version: 1\nhost_gateway: '5432,80'",           "write `[5432, 80]`"),
        // Ports.
        ("version: 1\nallow: [{host: a.b, ports: all}]",  "every port is `ports: any`"),
        ("version: 1\nallow: [{host: a.b, ports: ['*']}]", "every port is `ports: any`"),
        ("version: 1\nallow:\n- host: a.b\n  ports: *",   "every port is `ports: any`"),
        ("version: 1\nallow: [{host: a.b, ports: true}]", "every port is `ports: any`"),
        ("version: 1\nallow: [{host: a.b, ports: 80-90}]", "ranges are not known: list the ports"),
        ("version: 1\nallow: [{host: a.b, ports: [https]}]", "https is 443"),
        ("version: 1\nallow: [{host: a.b, ports: 443}]",  "put it in brackets: `[443]`"),
        ("version: 1\nallow: ['a.b:*']",                  "every port is `ports: any`, in the long form of an entry"),
        ("version: 1\nallow: ['a.b:1-65535']",            "every port is `ports: any`, in the long form of an entry"),
        ("version: 1\nallow: ['a.b:443/tcp']",            "write 443: no protocol stands behind a port"),
        // Hosts and addresses.
        ("version: 1\nallow: ['192.168.1.*:22']",         "write `192.168.1.0/24`"),
        ("version: 1\nallow: ['10.*.*.*']",               "write `10.0.0.0/8`"),
        ("version: 1\nallow: ['*.example.*']",            "name the domains: an entry for each, such as `example.com`"),
        ("version: 1\nallow: [1.2.3]",                    "an address has four numbers; a network is `1.2.3.0/24`"),
        ("version: 1\nallow: [10.1]",                     "an address has four numbers; a network is `10.1.0.0/16`"),
        ("version: 1\nallow: [5432]",                     "write the host in front of its port: `HOST:5432`"),
        ("version: 1\nallow: [169.254.169.254]",          "a metadata service hands out the credentials of the machine to whoever asks, and is never opened"),
        ("version: 1\nallow: [0.0.0.0]",                  "every address is `0.0.0.0/0`"),
        ("version: 1\nallow:\n- [2001:db8::1]:443",       "write `\"[2001:db8::1]:443\"`"),
        ("version: 1\nallow: ['::1:443']",                 "if 443 is the port, write `[::1]:443`"),
        ("version: 1\nallow: [{host: 'a.b:any'}]",        "write `host: a.b` and `ports: any`"),
        ("version: 1\nallow: [{address: '10.0.0.5:22'}]", "write `address: 10.0.0.5` and `ports: [22]`"),
        ("version: 1\nallow: [{host: 'http://a.b:8080/x'}]", "write `host: a.b` and `ports: [8080]`"),
        ("version: 1\nallow: [{host: [a, b]}]",           "write an entry for each"),
        ("version: 1\nallow: [{ip: 10.0.0.5}]",           "did you mean `address`?"),
        ("version: 1\nallow: [{domain: a.b}]",            "did you mean `host`?"),
        ("version: 1\nallow: [github.com: [443, 22]]",    "an entry has no space after the colon: `github.com:443,22`"),
        ("version: 1\nallow: [github.com: ]",             "an entry has no colon at its end: `github.com`"),
        ("version: 1\nallow:\n- host: a.b\n- ports: [1]", "if they belong to the entry above, leave the `-` out and line them up with its keys"),
        // Requests and programs.
        ("version: 1\nallow: [{host: a.b, http: ['GET,  HEAD /x']}]", "write `GET,HEAD /x`"),
        ("version: 1\nallow: [{host: a.b, http: [GET|POST /x]}]", "write `GET,POST /x`"),
        ("version: 1\nallow: [{host: a.b, by: [~/bin/x]}]", "write the whole path in place of `~`"),
        ("version: 1\nallow: [{host: a.b, by: ['**/curl']}]", "write `/**/curl`"),
        ("version: 1\nallow: [{host: a.b, by: '*'}]",       "leave `by` out: without it there is no limit"),
        ("version: 1\nallow: [{host: a.b, http: [any]}]",   "leave `http` out: without it there is no limit"),
        // Keys, tests and files.
        ("version: 1\nhosts: [a.b]",                      "did you mean `allow`?"),
        ("version: 1\ndenied: [a.b]",                     "did you mean `deny`?"),
        ("version: 1\nports: [1]",                        "`ports` belongs to an entry, in line with its `host`"),
        ("version: 1\nhide: [a]",                         "`hide` belongs to `filesystem`"),
        ("version: 1\ntests: [{allow: [a, b]}]",          "write a test for each destination"),
        ("version: 1\ntests: [{allow: a.b, by: [/x]}]",   "write a test for each program"),
        ("version: 1\ntests: [{allow: '*.a.b'}]",         "a test asks about one host and one port: write `HOST[:PORT]`"),
        ("version: 1\ntests: [{allow: a.b, request: get /x}]", "write `GET`"),
        ("version: 1\nfilesystem: {hide: ['*.env']}",     "write the path out; a file that is really called so cannot be named"),
        ("network: {allowedDomains: [a.b]}",              "docs/guide/policy.md says how they are written here"),
        ("permissions: {allow: []}",                      "docs/guide/policy.md says how they are written here"),
        ("network: {allowedDomains: [a.b]}\nfilesystem: {denyRead: [x]}", "docs/guide/policy.md says how they are written here"),
        // Blanks and signs.
        ("version:1\nallow: [a.b]",                       "write a blank after the colon: `version: 1`"),
        ("version: 1\nallow: [{host: a.b, reason: a: b}]", "put the text in quotes"),
        ("version: 1\nallow:\n- host: a.b\n  reason: a: b", "put the text in quotes: `\"a: b\"`"),
        ("version: 1\nallow:\n  -a.b",                    "write a blank after each `-`"),
        ("version: 1\nallow: ['host:a.b']",               "write a blank after the colon: `host: a.b`"),
        ("version: 1\nallow:\n- host:a.b\n  ports: [1]",  "write a blank after the colon: `host: a.b`"),
        ("version: 1\nallow:\n- host: a.b\n  ports:[1]",  "write a blank after the colon: `ports: [1]`"),
        ("version: 1\nallow: [{host: a.b,ports:[1]}]",    "write `: ` here"),
        ("version: 1\nallow:\n  - a.b\n - c.d",           "begin it in column 3, as line 3"),
        ("version: 1\nallow:\n  - a.b\n    - c.d",        "the next line is read as a part of this: line it up with this one"),
        ("version: 1\nallow:\n  - host: a.b\n     ports: [1]", "begin it in column 5, as line 3"),
        ("version: 1\nallow:\n  - a.b\n deny: [c.d]",     "begin it in column 1, as line 2"),
        ("version: 1\nallow: [a.b\ndeny: [c.d]",          "put `]` where it ends"),
        ("version: 1\nname: \"a\nallow: [c.d]",           "put another one where it ends"),
        ("version: 1\nallow:\n\u{a0}\u{a0}- a.b",         "there is a no-break space (U+00A0) here: write a blank, or nothing"),
        ("version: 1\nallow: [\"a.b\u{200b}\"]",           "there is a character that cannot be seen (U+200B) here: write a blank, or nothing"),
        ("{\n// words\n\"version\": 1}",                  "a comment begins with `#`, in JSON too"),
        ("// words\nversion: 1",                          "a comment begins with `#`, in JSON too"),
        ("version: 1\nallow:\n  - a.b // words",          "a comment begins with `#`, in JSON too"),
        ("version: 1\nallow:\n- host: a.b\n  http:\n  - * /x", "write `\"* /x\"`"),
    ];
    for (text, expected) in table {
        assert_eq!(errors(text).errors()[0].help(), Some(*expected), "{text}");
    }
}

#[test]
fn the_examples_of_the_guide_check_clean_and_pass_their_tests() {
    for example in examples_of_the_guide() {
        let parsed = Policy::parse("example.yaml", example.as_bytes()).unwrap();
        assert_eq!(parsed.warnings, []);
        for test in parsed.policy.run_tests() {
            assert!(test.passed, "{test:#?}");
        }
    }
}

/// The policies in the guide.
pub(crate) fn examples_of_the_guide() -> impl Iterator<Item = &'static str> {
    let page = include_str!("../../../../docs/guide/policy.md");
    let blocks = page.split("```yaml\n").skip(1);
    blocks.filter_map(|block| block.split("```").next())
}

#[test]
fn an_error_is_shown_as_rustc_shows_it() {
    let shown = errors("version: 1\nallow:\n  - api.github.com:443,70000\n").to_string();
    let expected = "\
error: `70000` is not a port
 --> p.yaml:3:24
  |
3 |   - api.github.com:443,70000
  |                        ^^^^^ 1 to 65535, in plain digits without leading zeros";
    assert_eq!(shown, expected);
    assert!(errors("version: 3").render(true).contains('\u{1b}'));
}

#[test]
fn a_program_is_told_what_a_person_is() {
    let errors = errors("version: 1\nallow: ['*.com', a..b]");
    let told = serde_json::to_value(errors.errors()).unwrap();
    let expected = serde_json::json!([
        {
            "level": "error", "message": "`*.com` would match every domain registered under `com`", "file": "p.yaml", "line": 2, "column": 10,
            "label": "a wildcard directly under a public suffix",
            "help": "name the domains, or write `default: allow-public` if every public destination is meant",
        },
        {
            "level": "error", "message": "`a..b` is not a host pattern", "file": "p.yaml", "line": 2, "column": 18,
            "label": "a label is empty (two dots in a row, or a dot in front)",
        },
    ]);
    assert_eq!(told, expected);
}

#[test]
fn a_policy_may_be_json_and_says_what_it_says() {
    let json = "{\n\t\"version\": 1,\n\t\"name\": \"no\",\n\t\"allow\": [\"a.example\", {\"host\": \"b.example\", \"ports\": [1]}],\n\t\
                \"filesystem\": {\"read\": [\"~/x\"], \"hide\": [\"a\"]}, \"host_gateway\": \"deny\", \"tests\": [{\"deny\": \"c.example\"}]\n}";
    let policy = Policy::parse("p.json", json.as_bytes()).unwrap().policy;
    assert_eq!(policy.name(), Some("no"));
    assert_eq!(policy.filesystem().read[0].to_string(), "~/x");
    assert_eq!(policy.filesystem().hide, ["a"]);
    assert_eq!(policy.entries(), 2);
    assert!(!policy.opens_host_gateway());
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("allow: [a.example, b.example]",                      &[]),
        ("default: allow-public",                              &["2:10 every public destination can be reached, and data can be sent to any of them"]),
        ("deny: ['*.a.example']",                              &["2:8 this denies names with exactly one label in front"]),
        ("allow: [a.example, A.example.]",                     &["2:20 a duplicate entry"]),
        ("inbound: [a.example, .a.example, '2001:db8::1']",    &[]),
        ("inbound: [a.example, A.example., '::1', '[::1]']",   &["2:22 a duplicate host", "2:41 a duplicate host"]),
        ("inbound: ['*.github.io', .corp]",                    &["2:11 anyone can get a name under `github.io`", "2:26 this allows every name under `corp`"]),
        ("allow: ['a.example:80', a.example]",                 &[]),
        ("allow: ['a.example:80', 'a.example:443', a.example]", &["2:42 a duplicate entry"]),
        ("allow: [x.a.example]\ndeny: ['**.a.example']",       &["2:9 this entry allows nothing"]),
        ("allow: ['*.a.example', '.a.example']\ndeny: ['**.a.example']", &["2:9 this entry allows nothing"]),
        ("allow: ['*.x.a.example', 'b*.a.example']\ndeny: ['.a.example']", &["2:9 this entry allows nothing", "2:26 this entry allows nothing"]),
        ("allow: [x.a.example]\ndeny: ['x.a.example:80']",     &[]),
        ("allow: [10.1.0.0/16]\ndeny: [10.0.0.0/8]",           &["2:9 this entry allows nothing"]),
        ("allow: ['*.github.io']",                             &["2:9 anyone can get a name under `github.io`"]),
        ("allow: ['**.corp']",                                 &["2:9 this allows every name under `corp`"]),
        ("tests: [{allow: a.b}]",                              &[]),
        ("allow: ['a.b:22', 'c.d:22', 'e.f:80']\ntests: [{deny: a.b}, {deny: 'c.d:80'}, {deny: g.h}, {deny: https://e.f}]", &["3:9 this test is about port 443, and port 22 is open"]),
        ("tests: [{deny: http://a.b/x}, {deny: http://a.b/}]", &["2:16 the path of this URL is not looked at"]),
        ("allow: [{host: a.b, http: [full]}, {host: a.c, ports: [80], http: [full]}]", &["2:9 `http` on port 443 is not enforced yet, so `egret run` does not take this policy"]),
        ("allow: [{host: a.b, by: [/x]}, {host: a.b, by: [/y]}, {host: a.b, by: [/x]}]", &["2:55 a duplicate entry"]),
        ("allow: [all]\ndeny: [none, git]",                    &["2:9 this is a host that is called `all`", "3:8 this is a host that is called `none`"]),
        ("allow: ['2001:db8::1:443', '2001:db8::1', '[2001:db8::1:443]:22']", &["2:9 `2001:db8::1:443` is one address, without a port"]),
        ("allow: ['*.docker.internal', host.docker.internal]",  &["2:9 no pattern opens the host that runs the sandbox"]),
        ("allow: [{host: a.b, ports: [80], http: [ANY /x, BREW /y, 'PURGE /z', 'GET /u/:id']}]", &["2:9 `ANY` is not a method that is known", "2:9 `BREW` is not a method that is known", "2:9 `:id` in a path means exactly these characters"]),
        ("allow: [{host: a.b, by: [/usr/bin/curl -s]}]",        &["2:9 `/usr/bin/curl -s` is one path, with a blank in it"]),
        // What one entry narrows, and another one opens.
        ("allow: [{host: a.b, ports: [80], http: [full]}, 'a.b:80']", &["2:9 the `http` of this entry restricts nothing"]),
        ("allow: [{host: a.b, ports: [80], http: [full], by: [/x]}, {host: a.b, by: [/x]}]", &["2:9 the `http` of this entry restricts nothing"]),
        ("allow: [{host: a.b, ports: [80], http: [full], under: [/x]}, a.b]", &["2:9 the `under` and `http` of this entry restrict nothing"]),
        ("allow: [{host: x.a.b, by: [/x]}, '**.a.b:80']",       &["2:9 the `by` of this entry keeps no other program out"]),
        ("allow: [{address: 9.1.0.0/16, by: [/x]}, 9.0.0.0/8]", &["2:9 the `by` of this entry keeps no other program out"]),
        ("allow: [{host: x.a.b, ports: [80], http: [full]}, '**.a.b']", &[]),
        ("allow: [{host: a.b, by: [/x]}, 'a.b:22']",            &[]),
        ("allow: [{host: a.b, by: [/x]}, {host: a.b, ports: [80], http: ['GET /']}]", &[]),
        ("allow: [{host: a.b, ports: [80], http: ['GET /']}, {host: a.b, by: [/x]}]", &[]),
        ("allow: [a.b]\ndeny: [{host: a.b, by: [/x]}, {host: a.b, ports: [80], http: ['POST /**']}]", &[]),
    ];
    for (text, expected) in table {
        let parsed = Policy::parse("p.yaml", format!("version: 1\n{text}").as_bytes()).unwrap();
        let said = parsed
            .warnings
            .iter()
            .map(|it| format!("{}:{} {}", it.line(), it.column(), it.message()));
        assert_eq!(said.collect::<Vec<_>>(), *expected, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn no_text_makes_the_reader_panic(parts in prop::collection::vec(prop_oneof![
        Just("version: 1\n".to_owned()), Just("allow:\n".to_owned()), Just("  - ".to_owned()), Just("\r\n".to_owned()),
        Just("{host: ".to_owned()), Just("ports: [".to_owned()), Just("addresses: [10.0.0.0/8".to_owned()),
        Just("deny: ['*.a.b', ".to_owned()), Just("a.b:0,1".to_owned()), Just("\"a\\n".to_owned()), Just("é*.ü:".to_owned()),
        Just("|\n  x".to_owned()), Just("]}".to_owned()), "[ -~]{0,4}", "\\PC{0,3}",
    ], 0..12)) {
        let text = parts.concat();
        match Policy::parse("p", text.as_bytes()) {
            Ok(parsed) => parsed.warnings.iter().for_each(|warning| drop(warning.to_string())),
            Err(errors) => drop(errors.to_string()),
        }
    }

    #[test]
    fn no_octets_make_the_reader_panic(octets in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Err(errors) = Policy::parse("p", &octets) {
            drop(errors.render(true));
        }
    }
}

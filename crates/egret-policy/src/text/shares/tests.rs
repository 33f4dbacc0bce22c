use super::*;
use crate::Policy;

#[test]
fn a_path_is_one_of_this_machine_and_may_be_another_inside() {
    #[rustfmt::skip]
    let table = [
        ("/srv/data",               "/srv/data",  None,           "/srv/data"),
        ("~/data",                  "~/data",     None,           "~/data"),
        (".",                       ".",          None,           "."),
        ("/srv/data:/data",         "/srv/data",  Some("/data"),  "/srv/data:/data"),
        ("./data:/data/",           "./data",     Some("/data"),  "./data:/data"),
        ("~/data:/a//b/./c",        "~/data",     Some("/a/b/c"), "~/data:/a/b/c"),
        ("/srv/data:/srv//data/",   "/srv/data",  None,           "/srv/data"),
        ("/srv/data/:/srv/data",    "/srv/data/", None,           "/srv/data/"),
        ("data:/data",              "data",       Some("/data"),  "data:/data"),
        ("/:/host",                 "/",          Some("/host"),  "/:/host"),
        ("a b:/c d",                "a b",        Some("/c d"),   "a b:/c d"),
    ];
    for (text, host, inside, shown) in table {
        let share = parse_share(text).unwrap_or_else(|bad| panic!("{text}: {}", bad.message));
        let parts = (share.host.as_str(), share.inside.as_deref());
        assert_eq!(parts, (host, inside), "{text}");
        assert_eq!(share.to_string(), shown);
        assert_eq!(parse_share(shown), Ok(share));
    }
}

/// Each section, and what its errors say: column, message and help.
#[test]
fn what_is_wrong_is_named_with_its_place() {
    let colon = "what is behind a colon is where a path is inside; a file that has one in its name cannot be named";
    let absolute = format!("where a path is inside begins with `/`: {colon}");
    let places = "write another place behind the colon of one of them";
    #[rustfmt::skip]
    let table: &[(&str, &[&str])] = &[
        ("read: ['/a:b']",             &[&format!("25 {absolute}")]),
        ("read: ['/a:']",              &[&format!("25 {absolute}")]),
        ("read: [':/a']",              &["22 this is not a path"]),
        ("read: ['']",                 &["21 this is not a path"]),
        ("write: ['/a:/']",            &["26 a path cannot be all that is inside: name a directory below `/`"]),
        ("write: ['/a:/b/../c']",      &["26 where a path is inside has no `..`: write it without"]),
        ("write: ['/a:/b:ro']",        &["28 `read` and `write` say already whether a path can be changed: leave `:ro` out"]),
        ("read: ['/a:rw,z']",          &["24 `read` and `write` say already whether a path can be changed: leave `:rw,z` out"]),
        ("read: ['/a:/b:/c']",         &[&format!("22 a path is `PATH` or `HOST:INSIDE`: {colon}")]),
        ("read: ['/a:/*']",            &["22 a path of `filesystem` has no `*`: write the path out; a file that is really called so cannot be named"]),
        ("hide: ['/a:/b']",            &[&format!("24 a path of `hide` has no colon: {colon}")]),
        ("read: [/a:/d, /b:/d/]",      &[&format!("28 two paths cannot both be `/d` inside: {places}")]),
        ("read: [/a], write: [/b:/a]", &[&format!("34 two paths cannot both be `/a` inside: {places}")]),
        ("read: [/a:/d, /b, ~/x:/e], write: [/a/:/d, /b/, ~/x:/e, ~/x, x]", &[]),
    ];
    for (section, expected) in table {
        let text = format!("version: 1\nfilesystem: {{{section}}}");
        let said: Vec<_> = match Policy::parse("p", text.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.errors().iter().map(said).collect(),
        };
        assert_eq!(said, *expected, "{section}");
    }
}

fn said(error: &crate::Diagnostic) -> String {
    let help = error.help().map(|help| format!(": {help}"));
    let help = help.unwrap_or_default();
    format!("{} {}{help}", error.column(), error.message())
}

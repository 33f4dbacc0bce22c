//! What a sandbox is made of: run configurations, mounts, ports, variables, and the messages to one that runs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt as _;

use egret_gateway::UpstreamProxy;
use egret_inside::fuzz::{self, Config, Mounted};
use serde_json::Value;

use crate::holds;

/// The text of a run configuration.
pub fn run_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(config) = fuzz::run_config(text) else {
        return;
    };
    holds(grants_no_more(&config, text));
    let again = fuzz::run_config(&config.written).expect("what was written is read");
    assert_eq!(again.written, config.written, "and says the same");
    let kept = fuzz::run_config(&config.kept).expect("what is kept is read");
    assert_eq!(kept.written, kept.kept, "and has no secrets left");
}

/// What a configuration leaves out it does not grant, as its JSON says by itself.
fn grants_no_more(config: &Config, text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let says = |name: &str| value.get(name).cloned().unwrap_or(Value::Null);
    if says("version") != 1 || !says("image").is_string() {
        return Err("it has no version, or no image".into());
    }
    if config.opens_host
        && matches!(
            says("allow_docker_gateway"),
            Value::Null | Value::Bool(false)
        )
    {
        return Err("the host is open".into());
    }
    if !config.is_sealed && says("isolate_network") != false {
        return Err("it is not sealed".into());
    }
    let weakening = says("weakening");
    let weakens = ["privileged", "device", "security_opt", "volumes_from"]
        .iter()
        .any(|name| match &weakening[name] {
            Value::Bool(is) => *is,
            Value::Array(all) => !all.is_empty(),
            _ => false,
        });
    if weakens && config.openings.is_empty() {
        return Err("it is weakened, and nobody says so".into());
    }
    let variables =
        serde_json::from_str::<Value>(&config.kept).map_err(|error| error.to_string())?;
    for variable in variables["env"].as_array().into_iter().flatten() {
        let variable = variable.as_str().unwrap_or_default();
        let name = variable
            .split('=')
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        if variable.contains('=') && (name.ends_with("_TOKEN") || name.ends_with("PASSWORD")) {
            return Err(format!("{name} is kept"));
        }
    }
    match variables["upstream_proxy"].as_str() {
        // One that is none ends the start of a sandbox before it is kept.
        Some(url) if url.contains('@') && url.parse::<UpstreamProxy>().is_ok() => {
            Err("credentials are kept".into())
        }
        _ => Ok(()),
    }
}

/// Which option it is, and what it says: `-v`, `--mount` or `-p`.
pub fn mount(data: &[u8]) {
    let Some((&option, text)) = data.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    match option % 3 {
        2 => {
            if let Ok(published) = fuzz::publish(text) {
                assert!((1..=256).contains(&published.len()), "some ports");
                for (address, host_port, port, written) in published {
                    holds(same_port(address, host_port, port, &written, text));
                }
            }
        }
        option => {
            let in_long_form = option == 1;
            if let Ok(mounted) = fuzz::mount(text, in_long_form) {
                let again = fuzz::mount(&mounted.written, in_long_form);
                assert_eq!(
                    again.as_ref(),
                    Ok(&mounted),
                    "an engine reads what was meant"
                );
                let read = match in_long_form {
                    true => as_engines_read_long(&mounted.written),
                    false => as_engines_read(&mounted.written),
                };
                holds(same_mount(&mounted, read));
            }
        }
    }
}

/// Source, target, and whether it is read-only, as engines read `-v`.
type Read = (Option<String>, String, bool);

fn as_engines_read(text: &str) -> Option<Read> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(match *parts.as_slice() {
        [target] => (None, target.into(), false),
        [target, options] if target.starts_with('/') && !options.starts_with('/') => {
            (None, target.into(), is_read_only(options))
        }
        [source, target] => (Some(source.into()), target.into(), false),
        [source, target, options] => (Some(source.into()), target.into(), is_read_only(options)),
        _ => return None,
    })
}

/// The same of `--mount`: a line of CSV whose keys count in any case, the last of each.
fn as_engines_read_long(text: &str) -> Option<Read> {
    let (mut source, mut target, mut is_read_only) = (None, None, false);
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, "true"));
        match key.trim().to_ascii_lowercase().as_str() {
            "source" | "src" => source = Some(value.to_owned()),
            "target" | "dst" | "destination" => target = Some(value.to_owned()),
            "readonly" | "ro" => is_read_only = !matches!(value, "false" | "0"),
            "type" | "tmpfs-size" | "tmpfs-mode" | "volume-nocopy" => {}
            _ => return None,
        }
    }
    Some((source, target?, is_read_only))
}

fn same_mount(mounted: &Mounted, read: Option<Read>) -> Result<(), String> {
    let Mounted {
        written,
        path,
        is_writable,
    } = mounted;
    let (source, target, is_read_only) = read.ok_or(format!("{written} is not understood"))?;
    if written.chars().any(|c| c.is_control() || c == '"') {
        return Err(format!("{written:?} has what ends it"));
    }
    if !target.starts_with('/') || is_read_only == *is_writable {
        return Err(format!("{target}, read-only {is_read_only}, of {written}"));
    }
    match (source, path) {
        (None, None) => Ok(()),
        (Some(source), Some(path)) if source == *path && source.starts_with('/') => Ok(()),
        (Some(source), None) if !source.starts_with(['/', '.', '~']) => Ok(()),
        (source, path) => Err(format!("{source:?} is {path:?}")),
    }
}

fn same_port(
    address: IpAddr,
    host_port: Option<u16>,
    port: u16,
    written: &str,
    text: &str,
) -> Result<(), String> {
    let outside = host_port.map(|port| port.to_string()).unwrap_or_default();
    let address_text = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    if written != format!("{address_text}:{outside}:1") || port == 0 || host_port == Some(0) {
        return Err(format!("{written} of {text}"));
    }
    // Without an address nobody else's machine gets in.
    match text.matches(':').count() < 2 && !address.is_loopback() {
        true => Err(format!("{address} of {text}")),
        false => Ok(()),
    }
}

/// Variables outside, one a line, and behind an empty line what was asked for.
pub fn environment(data: &[u8]) {
    let mut lines = data.split(|&byte| byte == b'\n');
    let mut outside = BTreeMap::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(at) = line.iter().position(|&byte| byte == b'=') {
            let part = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            outside.insert(part(&line[..at]), part(&line[at + 1..]));
        }
    }
    let set: Vec<String> = lines
        .filter(|line| !line.is_empty())
        .filter_map(|line| String::from_utf8(line.to_vec()).ok())
        .collect();
    if let Ok(inside) = fuzz::inherited(&outside, &set) {
        holds(holds_back(&inside, &set));
    }
}

fn holds_back(inside: &[(OsString, OsString)], set: &[String]) -> Result<(), String> {
    for (name, value) in inside {
        let Some(name) = name.to_str() else { continue };
        let is_asked_for = set.iter().any(|wish| wish.split('=').next() == Some(name));
        let shaped = name.to_ascii_uppercase();
        let is_secret = ["_TOKEN", "_SECRET", "_PASSWORD", "_CREDENTIALS"]
            .iter()
            .any(|end| shaped.ends_with(end))
            && ![
                "ANTHROPIC_AUTH_TOKEN",
                "CLAUDE_CODE_OAUTH_TOKEN",
                "HF_TOKEN",
            ]
            .contains(&name);
        let leads_out = name.starts_with("DBUS_")
            || name.starts_with("LISTEN_")
            || ["SSH_AUTH_SOCK", "DOCKER_HOST", "NOTIFY_SOCKET"].contains(&name);
        let is_proxy = shaped.ends_with("_PROXY")
            && ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"].contains(&shaped.as_str())
            && (name == shaped || name == shaped.to_ascii_lowercase());
        let leads_elsewhere = is_proxy && value != OsStr::new("http://127.0.0.1:61081");
        if (is_secret || leads_out || leads_elsewhere) && !is_asked_for {
            return Err(format!("{name} comes in"));
        }
    }
    Ok(())
}

/// What a running sandbox is told, or answers; what an engine answers; and a gateway's file of hosts.
pub fn control(data: &[u8]) {
    let (body, streams) = fuzz::engine(data);
    assert!(body.is_none_or(|body| body.len() <= data.len()));
    assert!(streams.is_none_or(|(output, errors)| output.len() + errors.len() <= data.len()));
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for address in fuzz::hosts("host.docker.internal", text) {
        holds(is_listed(address, text));
    }
    if let Ok(written) = fuzz::control(text) {
        assert!(!written.contains('\n'), "a message is one line");
        assert_eq!(fuzz::control(&written).as_ref(), Ok(&written));
    }
}

fn is_listed(address: IpAddr, text: &str) -> Result<(), String> {
    let lists = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        words.next().is_some_and(|word| word.parse() == Ok(address))
            && words.any(|word| word.eq_ignore_ascii_case("host.docker.internal"))
    };
    match text.lines().any(lists) {
        true => Ok(()),
        false => Err(format!("{address} is not in the file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_grants_what_it_leaves_out_is_noticed() {
        let text = r#"{"version": 1, "image": "x", "env": ["A_TOKEN=s"], "upstream_proxy": "http://u:p@h"}"#;
        let read = || fuzz::run_config(text).unwrap();
        assert_eq!(grants_no_more(&read(), text), Ok(()));
        let wrong: [fn(&mut Config); 4] = [
            |config| config.opens_host = true,
            |config| config.is_sealed = false,
            |config| config.kept = config.written.clone(),
            |config| config.kept = config.kept.replace("http://h", "http://u:p@h"),
        ];
        for (number, change) in wrong.iter().enumerate() {
            let mut config = read();
            change(&mut config);
            assert!(grants_no_more(&config, text).is_err(), "{number}");
        }
        let weak = r#"{"version": 1, "image": "x", "weakening": {"privileged": true}}"#;
        let mut config = fuzz::run_config(weak).unwrap();
        assert_eq!(grants_no_more(&config, weak), Ok(()));
        config.openings.clear();
        assert!(grants_no_more(&config, weak).is_err());
    }

    #[test]
    fn a_mount_that_an_engine_reads_otherwise_is_noticed() {
        let mounted = fuzz::mount("/tmp:/data:ro", false).unwrap();
        let judge = |mounted: &Mounted| same_mount(mounted, as_engines_read(&mounted.written));
        assert_eq!(judge(&mounted), Ok(()));
        for written in [
            "/tmp:/data",
            "/etc:/data:ro",
            "/tmp:data:ro",
            "/tmp:/a:/b:ro",
            "/tmp:/a\n:ro",
        ] {
            let wrong = Mounted {
                written: written.into(),
                path: mounted.path.clone(),
                is_writable: false,
            };
            assert!(judge(&wrong).is_err(), "{written}");
        }
        let long = "type=bind,source=/tmp,target=/data,readonly";
        let mounted = fuzz::mount(long, true).unwrap();
        let judge = |mounted: &Mounted| same_mount(mounted, as_engines_read_long(&mounted.written));
        assert_eq!(judge(&mounted), Ok(()));
        for more in [
            ",Source=/etc",
            ",READONLY=false",
            ",bind-propagation=shared",
        ] {
            let wrong = Mounted {
                written: format!("{long}{more}"),
                path: mounted.path.clone(),
                is_writable: false,
            };
            assert!(judge(&wrong).is_err(), "{more}");
        }
    }

    #[test]
    fn a_port_for_everybody_is_noticed() {
        let one = "127.0.0.1".parse().unwrap();
        let all = "0.0.0.0".parse().unwrap();
        assert!(same_port(one, Some(80), 80, "127.0.0.1:80:1", "80:80").is_ok());
        assert!(same_port(all, Some(80), 80, "0.0.0.0:80:1", "0.0.0.0:80:80").is_ok());
        assert!(same_port(all, Some(80), 80, "0.0.0.0:80:1", "80:80").is_err());
        assert!(same_port(one, Some(80), 80, "127.0.0.1:81:1", "80:80").is_err());
    }

    #[test]
    fn a_variable_that_should_not_come_in_is_noticed() {
        let inside = |name: &str, value: &str| vec![(name.into(), value.into())];
        for (name, value) in [
            ("GITHUB_TOKEN", "x"),
            ("SSH_AUTH_SOCK", "x"),
            ("https_proxy", "http://out"),
        ] {
            assert!(holds_back(&inside(name, value), &[]).is_err(), "{name}");
            assert!(
                holds_back(&inside(name, value), &[name.to_owned()]).is_ok(),
                "{name}"
            );
        }
        assert!(holds_back(&inside("HOME", "x"), &[]).is_ok());
        assert!(is_listed("192.0.2.1".parse().unwrap(), "192.0.2.1 other").is_err());
    }
}

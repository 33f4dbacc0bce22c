//! Which requests an endpoint takes: its preset or rules, within its path, in Egret's form.
//!
//! OpenShell's globs over paths have more wildcards than Egret's (`?`, `[…]`, `{…}`), which are refused. What they have in
//! common differs at the end of a path: there `/v1/**` does not mean `/v1`, and `/v1/*` does mean `/v1/`.

use super::endpoint::{Protocol, is_word};
use crate::glob::PathGlob;
use crate::report::{Span, did_you_mean};
use crate::request::RequestRule;
use crate::text::entry::{BadEntry, Side};
use crate::text::foreign::{Draft, is_said};
use crate::text::reader::{Pairs, get, list_of, shown};
use crate::text::yaml::{Node, Value};

/// What an endpoint says about its requests.
pub(super) struct Said<'n, 's> {
    pub(super) item: &'n Node<'s>,
    pub(super) path: Option<&'n Node<'s>>,
    pub(super) access: Option<&'n Node<'s>>,
    pub(super) rules: Option<&'n Node<'s>>,
    pub(super) deny_rules: Option<&'n Node<'s>>,
    pub(super) enforcement: Option<&'n Node<'s>>,
    pub(super) tls: Option<&'n Node<'s>>,
}

/// The requests that are taken, if they are looked at, and those that are refused.
type Requests = (Option<Vec<RequestRule>>, Vec<(Span, Vec<RequestRule>)>);

const RULE_KEYS: &[&str] = &[
    "method",
    "path",
    "query",
    "command",
    "operation_type",
    "operation_name",
    "fields",
    "tool",
    "params",
];
const PRESETS: &[&str] = &["read-only", "read-write", "full"];

impl Said<'_, '_> {
    /// Nothing if something is wrong.
    pub(super) fn read(&self, protocol: Protocol, draft: &mut Draft<'_, '_>) -> Option<Requests> {
        for (list, name) in [(self.rules, "rules"), (self.deny_rules, "deny_rules")] {
            if let Some(value) = list
                && matches!(&value.value, Value::List(items) if items.is_empty())
            {
                let message = format!("`{name}` is empty");
                let help = "leave the key out; `access: full` takes every request".to_owned();
                draft.report.error(value.span, message, "", Some(help));
                return None;
            }
        }
        let rules = self.rules.filter(|value| is_said(value));
        let deny_rules = self.deny_rules.filter(|value| is_said(value));
        if let (Some(_), Some(rules)) = (self.access, rules) {
            let message = "an endpoint has `access` or `rules`, not both";
            draft.report.error(
                rules.span,
                message,
                "",
                Some("leave one of the two out".to_owned()),
            );
            return None;
        }
        let path = match self.path {
            Some(value) => Some(draft.report.parsed(value, "`path`", endpoint_path)?),
            None => None,
        };
        let path = path.as_deref().unwrap_or("**");
        let base = self.access.or(rules);
        match protocol {
            Protocol::Tcp => {
                let l7 = [self.path, self.access, rules, deny_rules, self.enforcement];
                if let Some(value) = l7.into_iter().flatten().next() {
                    let message = "with `protocol: tcp` nothing can be said of requests";
                    let help = "write `protocol: rest`, or leave this out".to_owned();
                    draft.report.error(value.span, message, "", Some(help));
                    return None;
                }
                return Some((None, Vec::new()));
            }
            Protocol::Unsaid => {
                if let Some(deny_rules) = deny_rules {
                    let message = "`deny_rules` need a `protocol`";
                    draft.report.error(
                        deny_rules.span,
                        message,
                        "",
                        Some("add `protocol: rest`".to_owned()),
                    );
                    return None;
                }
                if rules.is_none()
                    && is_everything(path)
                    && self
                        .access
                        .is_none_or(|access| is_word(Some(access), "full"))
                {
                    return Some((None, Vec::new()));
                }
                draft.note(
                    "what an endpoint without `protocol` says of requests holds here, while OpenShell does not look at them",
                );
            }
            Protocol::Rest if base.is_none() => {
                let message = "`protocol: rest` needs `access` or `rules`";
                let help = "`access: full` takes every request".to_owned();
                draft.report.error(self.item.span, message, "", Some(help));
                return None;
            }
            Protocol::Rest => {}
        }
        if is_word(self.tls, "skip") {
            let message =
                "with `tls: skip` requests cannot be read, so what is said of them would not hold";
            let help = "leave `tls` out, or `protocol` and the rules".to_owned();
            let at = self.tls.map_or(self.item.span, |tls| tls.span);
            draft.report.error(at, message, "", Some(help));
        }
        let taken = match (self.access, rules) {
            (Some(access), _) => preset(access, path, draft)?,
            (None, Some(rules)) => allow_rules(rules, path, draft)?,
            (None, None) => request_rules("*", &globs(path, Side::Allow).ok()?),
        };
        if taken.is_empty() {
            // Left out, it would leave the place to what is less specific and may have no rules.
            let message = "no rule of the endpoint lies within its `path`";
            let help = "leave `path` out, or the endpoint".to_owned();
            draft.report.error(self.item.span, message, "", Some(help));
            return None;
        }
        let refused = match deny_rules {
            Some(list) => self.deny_rules(list, path, draft)?,
            None => Vec::new(),
        };
        let narrowed = !refused.is_empty() || !is_word(self.access, "full") || !is_everything(path);
        if narrowed && !is_word(self.enforcement, "enforce") {
            draft.note(
                "requests that no rule allows are always refused; OpenShell only logs them, unless the endpoint says \
                 `enforcement: enforce`",
            );
        }
        Some((Some(taken), refused))
    }

    fn deny_rules(
        &self,
        list: &Node<'_>,
        path: &str,
        draft: &mut Draft<'_, '_>,
    ) -> Option<Vec<(Span, Vec<RequestRule>)>> {
        let items = draft.report.list(list, "`deny_rules`");
        let mut refused = Some(Vec::new());
        for item in items {
            let rules = match &item.value {
                Value::Map(pairs) => rule(item, pairs, path, Side::Deny, draft),
                _ => not_a_rule(item, "{method: DELETE, path: \"/**\"}", draft),
            };
            match (&mut refused, rules) {
                (Some(refused), Some(rules)) if !rules.is_empty() => {
                    refused.push((item.span, rules))
                }
                (_, Some(_)) => {}
                (_, None) => refused = None,
            }
        }
        refused.filter(|_| !items.is_empty())
    }
}

/// The methods of a preset.
fn preset(access: &Node<'_>, path: &str, draft: &mut Draft<'_, '_>) -> Option<Vec<RequestRule>> {
    let word = draft.report.text(access, "`access`")?;
    let methods = match word {
        "read-only" => "GET,HEAD,OPTIONS",
        "read-write" => "GET,HEAD,OPTIONS,POST,PUT,PATCH",
        "full" => "*",
        _ => {
            let message = format!("`{}` is no value of `access`", shown(word));
            let label = format!("it can be {}", list_of(PRESETS));
            draft
                .report
                .error(access.span, message, label, did_you_mean(word, PRESETS));
            return None;
        }
    };
    Some(request_rules(methods, &globs(path, Side::Allow).ok()?))
}

fn allow_rules(list: &Node<'_>, path: &str, draft: &mut Draft<'_, '_>) -> Option<Vec<RequestRule>> {
    let items = draft.report.list(list, "`rules`");
    let mut taken = Some(Vec::new());
    for item in items {
        let allow = match &item.value {
            Value::Map(pairs) => match get(pairs, "allow").map(|allow| &allow.value) {
                Some(Value::Map(allow)) => {
                    draft.report.fields(pairs, &["allow"], "a rule");
                    Some(allow)
                }
                _ => None,
            },
            _ => None,
        };
        let rules = match allow {
            Some(pairs) => rule(item, pairs, path, Side::Allow, draft),
            None => not_a_rule(item, "allow: {method: GET, path: \"/**\"}", draft),
        };
        match (&mut taken, rules) {
            (Some(taken), Some(rules)) => taken.extend(rules),
            (_, None) => taken = None,
            (None, Some(_)) => {}
        }
    }
    taken.filter(|_| !items.is_empty())
}

fn not_a_rule<T>(item: &Node<'_>, form: &str, draft: &mut Draft<'_, '_>) -> Option<T> {
    let help = format!("write `{form}`");
    draft
        .report
        .error(item.span, "this is not a rule", "", Some(help));
    None
}

/// One rule, within the path of its endpoint.
fn rule(
    item: &Node<'_>,
    pairs: &Pairs<'_>,
    within: &str,
    side: Side,
    draft: &mut Draft<'_, '_>,
) -> Option<Vec<RequestRule>> {
    let mut good = true;
    for (key, value) in draft.report.fields(pairs, RULE_KEYS, "a rule") {
        if !matches!(key, "method" | "path") && is_said(value) {
            let instead = match key {
                "query" => "without it, a rule is about every query",
                _ => "",
            };
            draft.not_yet(value, &format!("`{key}`"), instead);
            good = false;
        }
    }
    if !good {
        return None;
    }
    let needed = |name: &str, draft: &mut Draft<'_, '_>| {
        let value = get(pairs, name).filter(|value| is_said(value));
        if value.is_none() {
            let message = format!("the rule has no `{name}`");
            let help = match name {
                "method" => "`method: \"*\"` means every one",
                _ => "`path: \"**\"` means every one",
            };
            draft
                .report
                .error(item.span, message, "", Some(help.to_owned()));
        }
        value
    };
    let (method_at, path_at) = (needed("method", draft), needed("path", draft));
    let (method_at, path_at) = (method_at?, path_at?);
    let methods = draft.report.parsed(method_at, "`method`", methods);
    let path = draft.report.parsed(path_at, "`path`", |text| {
        globs(text, side).map(|_| text.to_owned())
    });
    let (methods, path) = (methods?, path?);
    let mut below = ["/**", "/*"]
        .iter()
        .filter_map(|end| path.strip_suffix(end));
    if side == Side::Deny && below.any(|directory| !directory.is_empty()) {
        draft.note("a rule of `deny_rules` for `/x/*` or `/x/**` refuses `/x` as well");
    }
    match combine(&path, within) {
        Combined::Path(path) => Some(request_rules(&methods, &globs(path, side).ok()?)),
        Combined::Nothing => {
            let message = "this rule is about nothing: its path is outside the endpoint's";
            draft.report.warning(
                path_at.span,
                message,
                format!("the endpoint is for `{}`", shown(within)),
                None,
            );
            Some(Vec::new())
        }
        Combined::Unclear => {
            let message = "a `path` that only partly lies within the endpoint's `path` is not implemented yet";
            let label = format!("the endpoint is for `{}`", shown(within));
            let help = "leave out the endpoint's, and have each rule say its whole path".to_owned();
            draft.report.error(path_at.span, message, label, Some(help));
            None
        }
    }
}

/// The methods that are meant: GET also means HEAD, which differs only in what comes back.
fn methods(text: &str) -> Result<String, BadEntry> {
    let methods = match text.to_ascii_uppercase() {
        get if get == "GET" => "GET,HEAD".to_owned(),
        other => other,
    };
    match RequestRule::parse(&format!("{methods} /")) {
        Ok(_) if !text.contains(',') => Ok(methods),
        _ => {
            let message = format!("`{}` is not a method", text.escape_debug());
            Err(BadEntry::new(
                0..text.len(),
                message,
                "",
                "write one such as `GET`, or `*`",
            ))
        }
    }
}

fn endpoint_path(text: &str) -> Result<String, BadEntry> {
    if !text.starts_with('/') && text != "**" {
        let message = "an endpoint's `path` begins with `/`, or is `**`";
        return Err(BadEntry::new(0..text.len(), message, "", ""));
    }
    globs(text, Side::Allow).map(|_| text.to_owned())
}

/// Wildcards that Egret does not have.
pub(super) fn other_wildcard(path: &str) -> Option<BadEntry> {
    let at = path.find(['?', '[', ']', '{', '}', '\\'])?;
    let wildcard = path.get(at..=at).unwrap_or_default();
    let message = format!(
        "`{}` in a path, a wildcard of OpenShell's, is not implemented yet",
        wildcard.escape_debug()
    );
    let help = "write `*`, or the paths one by one";
    Some(BadEntry::new(at..at + 1, message, "", help))
}

fn is_everything(path: &str) -> bool {
    matches!(path, "**" | "/**")
}

/// A glob of OpenShell's in Egret's form. Where the two forms differ, what is allowed is exactly what is meant, and what is
/// denied is all of that.
fn globs(path: &str, side: Side) -> Result<Vec<String>, BadEntry> {
    if let Some(bad) = other_wildcard(path) {
        return Err(bad);
    }
    let (path, shift) = match path.strip_prefix("**") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => (format!("/{path}"), 1),
        _ => (path.to_owned(), 0),
    };
    let globs = match (side, path.strip_suffix("/**"), path.strip_suffix("/*")) {
        (Side::Allow, Some(base), _) if !base.is_empty() => {
            vec![format!("{base}/**/*"), format!("{base}/**/")]
        }
        (Side::Deny, _, Some(base)) => vec![format!("{base}/"), path.clone()],
        _ => vec![path.clone()],
    };
    for glob in &globs {
        RequestRule::parse(&format!("* {glob}")).map_err(|bad| {
            let end = path.len() - shift;
            let at = |place: usize| place.saturating_sub(2 + shift).min(end);
            let part = at(bad.part.start)..at(bad.part.end);
            BadEntry { part, ..bad }
        })?;
    }
    Ok(globs)
}

fn request_rules(methods: &str, globs: &[String]) -> Vec<RequestRule> {
    let rules = globs
        .iter()
        .map(|glob| RequestRule::parse(&format!("{methods} {glob}")));
    rules.filter_map(Result::ok).collect()
}

/// What two globs have in common.
#[derive(Debug, PartialEq, Eq)]
enum Combined<'p> {
    /// This.
    Path(&'p str),
    Nothing,
    /// Something that is no glob, or is hard to tell.
    Unclear,
}

fn combine<'p>(rule: &'p str, endpoint: &'p str) -> Combined<'p> {
    if is_everything(endpoint) || rule == endpoint || is_within(rule, endpoint) {
        return Combined::Path(rule);
    }
    if is_everything(rule) || is_within(endpoint, rule) {
        return Combined::Path(endpoint);
    }
    for (plain, glob) in [(rule, endpoint), (endpoint, rule)] {
        if !plain.contains('*') {
            return match means(glob, plain) {
                true => Combined::Path(plain),
                false => Combined::Nothing,
            };
        }
    }
    let both = rule.split('/').zip(endpoint.split('/'));
    let mut written_out =
        both.take_while(|(one, other)| !one.contains('*') && !other.contains('*'));
    match written_out.any(|(one, other)| one != other) {
        true => Combined::Nothing,
        false => Combined::Unclear,
    }
}

/// Whether a glob lies below the directory that another one names without wildcards.
fn is_within(glob: &str, directory: &str) -> bool {
    let below = directory
        .strip_suffix("**")
        .filter(|below| below.ends_with('/') && !below.contains('*'));
    below.is_some_and(|below| glob.starts_with(below))
}

/// Whether a glob means a path that is written out.
fn means(glob: &str, path: &str) -> bool {
    let segments: Vec<_> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let globs = globs(glob, Side::Allow).unwrap_or_default();
    let parsed = globs
        .iter()
        .filter_map(|glob| PathGlob::parse(glob, |_| None).ok());
    parsed.into_iter().any(|glob| glob.matches(&segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_means_here_what_it_means_there() {
        #[rustfmt::skip]
        let table = [
            // glob                path               allowed  denied
            ("/v1/*",             "/v1/a",            true,    true ),
            ("/v1/*",             "/v1/a/b",          false,   false),
            ("/v1/*",             "/v1/",             false,   true ), // there it is meant
            ("/v1/**",            "/v1",              false,   true ), // there it is not
            ("/v1/**",            "/v1/",             true,    true ),
            ("/v1/**",            "/v1/a",            true,    true ),
            ("/v1/**",            "/v1/a/b",          true,    true ),
            ("/v1/**",            "/v1/a/b/",         true,    true ),
            ("/v1/**",            "/v2/a",            false,   false),
            ("/**",               "/",                true,    true ),
            ("**",                "/a/b",             true,    true ),
            ("/**/x",             "/x",               true,    true ),
            ("**/x",              "/a/b/x",           true,    true ),
            ("/**/info/refs*",    "/o/r/info/refs",   true,    true ),
            ("/repos/*/issues/*", "/repos/o/issues/1", true,   true ),
        ];
        for (glob, path, allowed, denied) in table {
            assert_eq!(means(glob, path), allowed, "{glob} {path}");
            let segments: Vec<_> = path[1..].split('/').collect();
            let globs = globs(glob, Side::Deny).unwrap();
            let any = |glob: &String| PathGlob::parse(glob, |_| None).unwrap().matches(&segments);
            assert_eq!(globs.iter().any(any), denied, "{glob} {path} denied");
        }
    }

    #[test]
    fn a_rule_holds_within_the_path_of_its_endpoint() {
        #[rustfmt::skip]
        let table = [
            ("/v1/x",     "**",       Combined::Path("/v1/x")),
            ("**",        "/v1/**",   Combined::Path("/v1/**")),
            ("/v1/a/*",   "/v1/**",   Combined::Path("/v1/a/*")),
            ("/v1/**",    "/v1/a/*",  Combined::Path("/v1/a/*")),
            ("/v1/*",     "/v1/*",    Combined::Path("/v1/*")),
            ("/v1/a",     "/*/a",     Combined::Path("/v1/a")),
            ("/v1/b",     "/*/a",     Combined::Nothing),
            ("/*/a",      "/v1/a",    Combined::Path("/v1/a")),
            ("/v2/**",    "/v1/**",   Combined::Nothing),
            ("/v1/*/a",   "/v1/b/*",  Combined::Unclear),
            ("/**/a",     "/v1/**",   Combined::Unclear),
        ];
        for (rule, endpoint, expected) in table {
            assert_eq!(combine(rule, endpoint), expected, "{rule} {endpoint}");
        }
    }
}

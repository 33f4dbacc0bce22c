//! Links between the texts of the repository, those that are in no book as well.

use super::page::Page;
use super::repository;

#[test]
fn every_link_leads_somewhere() {
    let root = repository();
    let pages = Page::all();
    let (mut followed, mut broken) = (0, Vec::new());
    for page in &pages {
        let from = root.join(&page.path);
        for (line, link) in &page.links {
            if link.contains("://") {
                continue;
            }
            followed += 1;
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let to = match file {
                "" => from.clone(),
                file => from.with_file_name(file),
            };
            let path = to.canonicalize().unwrap_or_default();
            let other = pages.iter().find(|other| root.join(&other.path) == path);
            let there = path.starts_with(&root)
                && match other {
                    Some(other) => {
                        place.is_empty() || other.places.iter().any(|name| name == place)
                    }
                    None => place.is_empty(),
                };
            if !there {
                broken.push(format!("{}:{line}: {link}", page.path));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere: {broken:#?}");
    assert!(followed > 100, "only {followed} links were found");
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let contents = Page::read("docs/SUMMARY.md");
    let missing: Vec<_> = Page::all()
        .into_iter()
        .filter_map(|page| page.path.strip_prefix("docs/").map(str::to_owned))
        .filter(|path| path != "SUMMARY.md" && !contents.links.iter().any(|(_, link)| link == path))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/SUMMARY.md does not name {missing:?}"
    );
}

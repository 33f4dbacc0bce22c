//! Reading a page: its blocks, and its links.

use std::fs;
use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use super::repository;

/// A page of the guide, or another text of the repository.
pub(super) struct Page {
    /// From the root of the repository.
    pub(super) path: String,
    /// What is run, in order.
    pub(super) blocks: Vec<Block>,
    /// What is there before, by name.
    pub(super) files: Vec<(String, String)>,
    /// Why each other block is not run.
    pub(super) not_run: Vec<String>,
    /// Blocks of other languages: the line, the language, the text.
    pub(super) examples: Vec<(usize, String, String)>,
    /// Where its links lead, with the line.
    pub(super) links: Vec<(usize, String)>,
    /// What links may name of it: its headings, as they are addressed.
    pub(super) places: Vec<String>,
}

/// Commands, and what they print.
pub(super) struct Block {
    pub(super) line: usize,
    pub(super) script: String,
    pub(super) prints: Option<String>,
}

impl Page {
    /// The README and whatever else is for readers.
    pub(super) fn all() -> Vec<Page> {
        let root = repository();
        let mut paths: Vec<_> = ["README.md", "ARCHITECTURE.md", "SECURITY.md"]
            .map(str::to_owned)
            .to_vec();
        collect(&root, "docs", &mut paths);
        paths.sort();
        paths.iter().map(|path| Page::read(path)).collect()
    }

    #[track_caller]
    pub(super) fn read(path: &str) -> Page {
        let text =
            fs::read_to_string(repository().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut page = Page {
            path: path.to_owned(),
            blocks: Vec::new(),
            files: Vec::new(),
            not_run: Vec::new(),
            examples: Vec::new(),
            links: Vec::new(),
            places: Vec::new(),
        };
        page.take(&text);
        page
    }

    /// Whether a command that is run has this in it.
    pub(super) fn mentions(&self, words: &str) -> bool {
        self.blocks.iter().any(|block| block.script.contains(words))
    }

    fn take(&mut self, text: &str) {
        let line = |offset: usize| text[..offset].lines().count() + 1;
        let (mut comment, mut fenced, mut heading) = (None, None, None);
        // Whether the last block of commands is of this section, so that output may belong to it.
        let mut open = false;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Html(html) => comment = instruction(&html),
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    fenced = Some((language.to_string(), String::new(), line(range.start)));
                }
                Event::End(TagEnd::CodeBlock) => {
                    let Some((language, text, line)) = fenced.take() else {
                        continue;
                    };
                    let typed = self.path.starts_with("docs/guide/")
                        && language != "sh"
                        && text.lines().any(|line| line.starts_with("$ "));
                    assert!(
                        !typed,
                        "{}:{line}: commands are in `sh` blocks, which are run, and without a prompt",
                        self.path
                    );
                    match (comment.take(), language.as_str()) {
                        (Some(("file", name)), _) => {
                            // What a project takes away is another language, and there are commands that read it.
                            if !name.ends_with("/egret.yaml") {
                                self.examples.push((line, language, text.clone()));
                            }
                            self.files.push((name, text));
                        }
                        (Some(("not run", reason)), "sh") => {
                            self.not_run.push(reason);
                            open = false;
                        }
                        (Some(("not a policy", _)), "yaml") => {}
                        (None, "sh") => {
                            self.blocks.push(Block {
                                line,
                                script: text,
                                prints: None,
                            });
                            open = true;
                        }
                        (None, "text") if open => {
                            self.blocks.last_mut().unwrap().prints = Some(text);
                            open = false;
                        }
                        (None, _) => self.examples.push((line, language, text)),
                        (Some((word, _)), _) => {
                            panic!("{}:{line}: `{word}` says nothing of this block", self.path)
                        }
                    }
                }
                Event::Start(Tag::Heading { level, .. }) => {
                    open = open && level > HeadingLevel::H3;
                    heading = Some(String::new());
                }
                Event::End(TagEnd::Heading(_)) => {
                    let place = address(&heading.take().unwrap_or_default());
                    self.places.push(place);
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    self.links.push((line(range.start), dest_url.to_string()));
                }
                Event::Text(words) | Event::Code(words) => {
                    if let Some((_, text, _)) = &mut fenced {
                        text.push_str(&words);
                    }
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                _ => {}
            }
        }
    }
}

/// What a comment says of the block that follows.
fn instruction(html: &str) -> Option<(&'static str, String)> {
    let inner = html.trim().strip_prefix("<!--")?.strip_suffix("-->")?;
    let (word, rest) = inner.split_once(':')?;
    let word = ["file", "not run", "not a policy"]
        .into_iter()
        .find(|known| *known == word.trim())?;
    Some((word, rest.trim().to_owned()))
}

/// How a heading is named in a link.
fn address(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

/// Every page below a directory.
fn collect(root: &Path, directory: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{directory}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, paths);
        } else if path.ends_with(".md") {
            paths.push(path);
        }
    }
}

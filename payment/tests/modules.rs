//! The modules of the crate stand in one order, and none uses one below itself: there are no circles.

use std::{
    fs,
    path::{Path, PathBuf},
};

const SRC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

#[test]
fn a_module_uses_only_modules_above_it() {
    let order = order();
    let place = |name: &str| order.iter().position(|module| module == name);
    let mut files = Vec::new();
    collect(Path::new(SRC), &mut files);
    assert!(files.len() > order.len());
    for file in files {
        let path = file.strip_prefix(SRC).unwrap();
        let first = path.iter().next().unwrap().to_str().unwrap();
        let Some(here) = place(first.trim_end_matches(".rs")) else {
            assert_eq!(first, "lib.rs", "{} is in no module", path.display());
            continue;
        };
        for used in used(&fs::read_to_string(&file).unwrap()) {
            let there = place(&used).unwrap_or_else(|| panic!("{}: crate::{used}", path.display()));
            assert!(
                there <= here,
                "{} uses {used}, which stands below it",
                path.display()
            );
        }
    }
}

/// The modules as lib.rs lists them.
fn order() -> Vec<String> {
    let text = fs::read_to_string(format!("{SRC}/lib.rs")).unwrap();
    let modules = text.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    modules.map(str::to_owned).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

/// What follows `crate::`, one by one or in braces. Tests at the end of a file may use anything.
fn used(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut used = Vec::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => used.push(name(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut is_start = true;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => is_start = true,
                        c if is_start && depth == 0 && c.is_alphabetic() => {
                            used.push(name(&list[at..]));
                            is_start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used
}

fn name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

//! The shipped examples against the program: every configuration as it stands, every commented line of it, every example of a sale's
//! commented lines, and the page that lists the keys. None of them rots.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use gateway::config::{Config, ConfigError, Inputs};

/// A public key that somebody may have put under a name that ends so.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Problems of a configuration. Files and secrets of the operator's machine are not ours to have: each is what its name promises.
fn problems(text: &str) -> Vec<String> {
    let made = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let read = |path: &Path| {
        let content = match path.extension().and_then(|ending| ending.to_str()) {
            Some("crt") => cert.clone(),
            Some("pem") if path.to_string_lossy().ends_with(".pub.pem") => PUBLIC_KEY.to_owned(),
            Some("pem") => cert.clone(),
            Some("key") if path.parent().is_some_and(|folder| folder.ends_with("tls")) => {
                key.clone()
            }
            Some("key")
                if path
                    .parent()
                    .is_some_and(|folder| folder.ends_with("certs")) =>
            {
                key.clone()
            }
            _ => "sk_test_0123456789abcdef".to_owned(),
        };
        Ok(content.into_bytes())
    };
    let inputs = Inputs {
        read: &read,
        is_folder: &std::path::Path::is_dir,
        env: &|_| Some("sk_test_0123456789abcdef".to_owned()),
        cores: 2,
    };
    match Config::try_parse(text, &inputs) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Problems(list)) => list,
        Err(other) => panic!("{other}"),
    }
}

fn configurations() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for folder in ["config", "config/deploy/k8s"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    assert!(
        files.len() >= 3,
        "penstock.toml, cluster.toml and that of Kubernetes"
    );
    files
}

/// A name of keys or tables.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// What a comment line would say without its number sign, if that is `key = value` or `[table]` and no prose.
fn example(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("# ")?;
    let header = rest
        .trim_start_matches('[')
        .split(']')
        .next()
        .unwrap_or_default();
    let is_table = rest.starts_with('[') && header.split('.').all(is_name);
    let is_key = rest
        .split_once(" = ")
        .is_some_and(|(key, value)| is_name(key) && !value.is_empty());
    (is_table || is_key).then_some(rest)
}

/// The lines of a file as `# key = value` or `# [table]`, a paragraph at a time: first line, and the lines without the number sign.
fn commented(text: &str) -> Vec<(usize, Vec<&str>)> {
    let mut paragraphs: Vec<(usize, Vec<&str>)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let Some(example) = example(line) else {
            continue;
        };
        match paragraphs.last_mut() {
            Some((first, lines)) if *first + lines.len() == at => lines.push(example),
            _ => paragraphs.push((at, vec![example])),
        }
    }
    paragraphs
}

/// The file with one paragraph in force. A key that it sets is taken out of its table, so that the example is the one that holds.
fn with(text: &str, first: usize, paragraph: &[&str]) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let table = |line: &&str| line.starts_with('[');
    let begins = lines[..first].iter().rposition(&table).unwrap_or(0);
    let ends = lines[first..]
        .iter()
        .position(&table)
        .map_or(lines.len(), |at| first + at);
    let own: Vec<String> = paragraph
        .iter()
        .take_while(|line| !table(line))
        .filter_map(|line| line.split_once(" = ").map(|(key, _)| format!("{key} = ")))
        .collect();
    let is_replaced = |at: usize, line: &str| {
        (begins..ends).contains(&at) && own.iter().any(|key| line.starts_with(key))
    };
    let mut whole = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        match at.checked_sub(first).and_then(|nth| paragraph.get(nth)) {
            Some(example) => whole.push(*example),
            None if is_replaced(at, line) => {}
            None => whole.push(*line),
        }
    }
    whole.join("\n")
}

#[test]
fn shipped_configurations_have_no_problems_and_a_misspelt_key_has() {
    for (path, text) in configurations() {
        assert_eq!(problems(&text), [""; 0], "{}", path.display());
        let misspelt = problems(&text.replacen("upstream = ", "upstraem = ", 1));
        assert!(
            misspelt
                .iter()
                .any(|line| line.contains("did you mean \"upstream\"")),
            "{}: {misspelt:?}",
            path.display()
        );
    }
}

#[test]
fn every_commented_example_works_when_its_number_signs_are_taken_away() {
    let mut tried = 0;
    for (path, text) in configurations() {
        for (first, paragraph) in commented(&text) {
            let found = problems(&with(&text, first, &paragraph));
            let place = format!("{}:{}", path.display(), first + 1);
            // Kafka is spoken by a program that was built for it.
            let is_kafka =
                paragraph.iter().any(|line| line.contains("kafka://")) && !cfg!(feature = "kafka");
            match is_kafka {
                true => assert!(
                    found.len() == 1 && found[0].contains("cargo feature \"kafka\""),
                    "{place}: {found:?}"
                ),
                false => assert_eq!(found, [""; 0], "{place}"),
            }
            // The lines are in force: a slip in the first key or table of them is told.
            let mut slipped = paragraph.clone();
            let slip = match slipped[0].strip_prefix("[[") {
                Some(rest) => format!("[[x{rest}"),
                None => match slipped[0].strip_prefix('[') {
                    Some(rest) => format!("[x{rest}"),
                    None => format!("x{}", slipped[0]),
                },
            };
            slipped[0] = &slip;
            assert_ne!(
                problems(&with(&text, first, &slipped)),
                [""; 0],
                "{place}: not in force"
            );
            tried += 1;
        }
    }
    assert!(tried >= 20, "{tried}");
}

#[test]
fn commented_lines_of_sales_are_fields_of_sales() {
    let mut tried = 0;
    for entry in std::fs::read_dir(root().join("config/sales")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (first, paragraph) in commented(&text) {
            let whole = with(&text, first, &paragraph);
            let mut sale: seckill::sale::NewSale = toml::from_str(&whole).unwrap();
            sale.starts_at_ms = sale.starts_at_ms.or(Some(1));
            sale.ends_at_ms = sale.ends_at_ms.or(Some(2));
            if let Err(found) = sale.check() {
                panic!("{}:{}: {found:?}", path.display(), first + 1);
            }
            tried += 1;
        }
    }
    assert!(tried >= 5, "{tried}");
}

/// What the program allows in a table, out of its own words about a key that it does not know.
fn allowed(table: &str, is_list: bool) -> BTreeSet<String> {
    let mut text = String::new();
    if let Some((parent, _)) = table
        .split_once('.')
        .filter(|(parent, _)| ["listener", "upstream"].contains(parent))
    {
        text += &format!("[[{parent}]]\nname = \"zz\"\n");
    }
    text += &match (table, is_list) {
        ("", _) => "zz = 1\n".to_owned(),
        (table, true) => format!("[[{table}]]\nzz = 1\n"),
        (table, false) => format!("[{table}]\nzz = 1\n"),
    };
    let found = problems(&text);
    let told = found.iter().find_map(|line| {
        let (_, names) = line.split_once("zz: unknown key: must be one of ")?;
        Some(
            names
                .split(" (did you mean")
                .next()
                .unwrap_or_default()
                .to_owned(),
        )
    });
    let told = told.unwrap_or_else(|| panic!("[{table}] says nothing of zz: {found:?}"));
    let words = told.split(|c: char| !c.is_ascii_lowercase() && c != '_' && !c.is_ascii_digit());
    words
        .filter(|word| !["", "one", "of", "or"].contains(word))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_key_of_the_configuration_is_on_its_page() {
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let page = page.split("\n# The documents of sales").next().unwrap();
    let mut tables = BTreeSet::new();
    for section in page.split("\n## ").skip(1) {
        let (heading, rows) = section.split_once('\n').unwrap();
        let table = heading.trim_matches(|c| "`[]".contains(c));
        let mut listed = BTreeSet::new();
        for row in rows.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            assert!(cells.len() == 5, "[{table}]: five cells: {row}");
            listed.extend(
                cells[0]
                    .split(',')
                    .map(|key| key.trim_matches(|c| " `".contains(c)).to_owned()),
            );
        }
        assert_eq!(
            listed,
            allowed(table, heading.starts_with("`[[")),
            "{heading}"
        );
        tables.insert(table.split('.').next().unwrap_or_default().to_owned());
    }
    assert_eq!(tables, allowed("", false), "the tables of the file");
}

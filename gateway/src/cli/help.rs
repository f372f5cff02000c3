//! What `--help` of every command ends with: examples that work, and exit codes. One table, so that none is forgotten.

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::Cli;

/// A command by its words, its examples, and what its exit codes mean.
type End = (
    &'static str,
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

/// Of a command that asks the admin API.
const ASKS: &[(&str, &str)] = &[
    ("0", "done; the answer was printed"),
    ("1", "refused or not answered; the reason was printed"),
    ("2", "the command line is wrong"),
];

const ENDS: &[End] = &[
    (
        "",
        &[
            "penstock check --config config/penstock.toml",
            "penstock serve --config config/penstock.toml",
            "penstock demo --json verdict.json",
            "penstock sale create --id spring --sku shoe --stock 100 --price 1999",
            "penstock sale show spring",
            "penstock reconcile spring",
        ],
        &[
            ("0", "done, and all is well"),
            (
                "1",
                "failed, or a promise is broken; the reason was printed",
            ),
            (
                "2",
                "the configuration or the command line is wrong; every problem was printed",
            ),
        ],
    ),
    (
        "serve",
        &[
            "penstock serve",
            "penstock serve --trust-local-buyers",
            "penstock serve --accept-clock",
            "penstock serve --config config/cluster.toml --role edge",
            "penstock serve --config config/cluster.toml --role worker",
        ],
        &[
            (
                "0",
                "stopped by a signal, everything in flight was finished",
            ),
            ("1", "cannot serve; the log says why"),
            (
                "2",
                "the configuration or the command line is wrong; every problem was printed",
            ),
        ],
    ),
    (
        "check",
        &[
            "penstock check",
            "penstock check --config config/cluster.toml",
        ],
        &[
            ("0", "no problems; warnings name what may be a mistake"),
            ("2", "problems; every one was printed"),
        ],
    ),
    (
        "demo",
        &[
            "penstock demo",
            "penstock demo --json verdict.json",
            "penstock demo --keep",
        ],
        &[
            ("0", "every invariant held"),
            ("1", "one did not, or the demo could not run"),
            ("2", "the command line is wrong"),
            ("130", "interrupted"),
        ],
    ),
    (
        "sale create",
        &[
            "penstock sale create --id spring --sku shoe-42 --stock 1000 --price 1999 \\\n      --currency usd --starts-in 10m --lasts 2h --buyer-limit 2",
            "penstock sale create --file config/sales/hot-sku.toml --lasts 30m",
            "penstock sale create --file config/sales/lottery.toml --id raffle-2 --draft",
        ],
        ASKS,
    ),
    (
        "sale list",
        &[
            "penstock sale list",
            "penstock sale list --admin http://127.0.0.1:9901 --token-file admin.token",
        ],
        ASKS,
    ),
    ("sale show", &["penstock sale show spring"], ASKS),
    ("sale publish", &["penstock sale publish spring"], ASKS),
    (
        "sale edit",
        &[
            "penstock sale edit spring --set buyer_limit=3 --set 'pay_within=\"20m\"'",
            "penstock sale edit spring --file change.json",
        ],
        ASKS,
    ),
    (
        "sale extend",
        &[
            "penstock sale extend spring --by 10m",
            "penstock sale extend spring --by -5m",
        ],
        ASKS,
    ),
    ("sale slots", &["penstock sale slots visit"], ASKS),
    (
        "sale checkin",
        &["penstock sale checkin visit ord_01m7yh0f7kxzynk51ksqsxanvr 7Q2M9XKD"],
        ASKS,
    ),
    ("sale pause", &["penstock sale pause spring"], ASKS),
    ("sale resume", &["penstock sale resume spring"], ASKS),
    ("sale close", &["penstock sale close spring"], ASKS),
    (
        "sale restock",
        &["penstock sale restock spring --sku shoe-42 --units 50 --id delivery-7"],
        ASKS,
    ),
    (
        "dead-letters list",
        &["penstock dead-letters list spring"],
        ASKS,
    ),
    (
        "dead-letters replay",
        &[
            "penstock dead-letters replay spring shoe:0:17-0",
            "penstock dead-letters replay spring --all",
            "penstock dead-letters replay spring --all --or-refuse",
        ],
        &[
            ("0", "every entry is settled, or closed as was asked for"),
            (
                "1",
                "an entry stays, or the call was refused; the reason was printed",
            ),
            ("2", "the command line is wrong"),
        ],
    ),
    (
        "dead-letters replay-events",
        &[
            "penstock dead-letters replay-events spring",
            "penstock dead-letters replay-events spring evt_01m7yh0f7kxzynk51ksqsxanvr_2",
        ],
        ASKS,
    ),
    (
        "token issue",
        &["penstock token issue --sale vip --buyer ann --buyer bob --expires-in 15m"],
        ASKS,
    ),
    (
        "lottery seed",
        &["penstock lottery seed --out seed.hex"],
        &[
            ("0", "the seed is in the file, its commitment was printed"),
            ("1", "the file is there already, or cannot be written"),
            ("2", "the command line is wrong"),
        ],
    ),
    (
        "lottery draw",
        &["penstock lottery draw raffle --seed-file seed.hex --beacon 8f3a"],
        ASKS,
    ),
    (
        "lottery reserve",
        &["penstock lottery reserve raffle --round 2 --winners 50"],
        ASKS,
    ),
    (
        "lottery verify",
        &[
            "penstock lottery verify http://shop.example/v1/sales/raffle --save draw.json",
            "penstock lottery verify draw.json \\\n      --buyer ann --nonce 00112233445566778899aabbccddeeff",
        ],
        &[
            ("0", "the draw is the one that was published"),
            ("1", "it is not, or it cannot be read"),
            ("2", "the command line is wrong"),
        ],
    ),
    (
        "reconcile",
        &[
            "penstock reconcile",
            "penstock reconcile spring",
            "penstock reconcile spring --dry-run",
        ],
        &[
            ("0", "stock, orders and money agree"),
            ("1", "a promise is broken, or a sale could not be compared"),
            ("2", "the command line is wrong"),
        ],
    ),
    (
        "backup",
        &["penstock backup --to /backups/2026-11-21"],
        &[
            ("0", "the backup is whole; its manifest was printed"),
            ("1", "there is none; the reason was printed"),
            ("2", "the command line is wrong"),
        ],
    ),
    (
        "restore",
        &["penstock restore --from /backups/2026-11-21 --to data"],
        &[
            ("0", "restored; store and ledger agree"),
            (
                "1",
                "not restored, or they disagree; the findings were printed",
            ),
            ("2", "the command line is wrong"),
        ],
    ),
    (
        "reload",
        &[
            "penstock reload",
            "penstock reload --admin http://127.0.0.1:9901 --token-file admin.token",
        ],
        &[
            ("0", "the configuration is in force"),
            (
                "1",
                "refused or not answered: nothing was changed; every problem was printed",
            ),
            ("2", "the command line is wrong"),
        ],
    ),
    (
        "openapi",
        &[
            "penstock openapi sale > sale.json",
            "penstock openapi admin > admin.json",
        ],
        &[("0", "printed"), ("2", "the command line is wrong")],
    ),
    (
        "completions",
        &["penstock completions bash > /etc/bash_completion.d/penstock"],
        &[("0", "printed"), ("2", "the command line is wrong")],
    ),
];

/// The command line with its help.
pub fn command() -> Command {
    let is_built = |words: &str| cfg!(feature = "demo") || words != "demo";
    // `-h` is the same: the short form has one line an option, and those are wider than a terminal.
    let help = Arg::new("help")
        .short('h')
        .long("help")
        .action(ArgAction::HelpLong)
        .help("Print help")
        .global(true);
    let root = Cli::command().disable_help_flag(true).arg(help);
    ENDS.iter().filter(|(words, ..)| is_built(words)).fold(
        root,
        |command, (words, examples, codes)| {
            let mut text = String::from("Examples:");
            for example in *examples {
                text += "\n  ";
                text += example;
            }
            text += "\n\nExit codes:";
            for (code, meaning) in *codes {
                text += &format!("\n  {code:<3}  {meaning}");
            }
            let words: Vec<&str> = words.split_whitespace().collect();
            end_at(command, &words, text)
        },
    )
}

fn end_at(command: Command, words: &[&str], text: String) -> Command {
    match words.split_first() {
        None => command.after_help(text),
        Some((word, rest)) => command.mut_subcommand(word, |inner| end_at(inner, rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &Command, words: &str, found: &mut Vec<(String, String)>) {
        let help = command.get_after_help().map(ToString::to_string);
        if !command.has_subcommands() {
            found.push((words.trim().to_owned(), help.unwrap_or_default()));
        }
        for inner in command.get_subcommands() {
            leaves(inner, &format!("{words} {}", inner.get_name()), found);
        }
    }

    /// As a shell would, as far as the examples go.
    fn split(line: &str) -> Vec<String> {
        let line = line.split(" > ").next().unwrap_or_default();
        let mut words = Vec::new();
        for (nth, part) in line.split('\'').enumerate() {
            match nth % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    #[test]
    fn every_command_ends_its_help_with_examples_and_exit_codes() {
        let mut found = Vec::new();
        leaves(&command(), "", &mut found);
        assert!(found.len() >= 25, "{}", found.len());
        for (words, help) in found {
            let help = help.replace("\\\n", "");
            let (examples, codes) = help.split_once("\n\nExit codes:\n").unwrap_or_default();
            let examples: Vec<&str> = examples.lines().skip(1).collect();
            assert!(
                !examples.is_empty() && codes.contains("  0    "),
                "penstock {words}: {help}"
            );
            for example in examples {
                let example = example.trim();
                assert!(
                    example.starts_with(&format!("penstock {words}")),
                    "{example}"
                );
                if let Err(error) = command().try_get_matches_from(split(example)) {
                    panic!("{example}: {error}");
                }
            }
        }
    }

    /// Broke: half of the lines were wider than the terminal, and wrapped in the middle of a word.
    #[test]
    fn every_help_fits_a_terminal_of_80_columns() {
        fn widest(command: &mut Command, wide: &mut Vec<String>) {
            let help = command.render_long_help().to_string();
            let lines = help.lines().filter(|line| line.chars().count() > 80);
            wide.extend(lines.map(|line| format!("{}: {line}", command.get_name())));
            for inner in command.get_subcommands_mut() {
                widest(inner, wide);
            }
        }
        let (mut command, mut wide) = (command(), Vec::new());
        // Puts the options of the parents into the commands.
        command.build();
        widest(&mut command, &mut wide);
        assert!(wide.is_empty(), "{wide:#?}");
    }

    #[test]
    fn every_end_belongs_to_a_command() {
        for (words, ..) in ENDS {
            let root = Cli::command();
            let mut at = &root;
            for word in words.split_whitespace() {
                at = at
                    .find_subcommand(word)
                    .unwrap_or_else(|| panic!("{words}"));
            }
            assert!(words.is_empty() || !at.has_subcommands(), "{words}");
        }
    }

    #[test]
    fn an_id_that_would_change_the_path_of_a_call_is_refused() {
        for id in ["spring?", "a/b", "a b", "", "spring#x", "%41"] {
            for line in [
                vec!["sale", "close", id],
                vec!["reconcile", id],
                vec!["dead-letters", "list", id],
            ] {
                let words = ["penstock"].into_iter().chain(line);
                assert!(command().try_get_matches_from(words).is_err(), "{id:?}");
            }
        }
    }
}

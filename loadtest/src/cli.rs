//! The command line: what can be asked, and what is told while a run goes on.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::history::Level;
use crate::live::Live;
use crate::oracle::{self, Allow};
use crate::report::{Exit, render};
use crate::scenario::{Problems, Scenario};

const AFTER_HELP: &str = "\
Examples:
  loadtest validate config/scenarios/flash-sale.toml
  loadtest run config/scenarios/flash-sale.toml
  loadtest run config/scenarios/constant.toml --json report.json \\
      --target https://shop.example:8443
  loadtest run config/scenarios/ramp.toml --html report.html --plain
  loadtest run config/scenarios/carts.toml --target http://127.0.0.1:8080
  loadtest run config/scenarios/flash-sale.toml --history run.jsonl
  loadtest completions bash > /etc/bash_completion.d/loadtest

Exit codes:
    0  everything held
    1  it could not run: nothing answered, or the ledger could not be asked
    2  the scenario or the command line is wrong
    3  a threshold of the scenario was missed
    4  an invariant is broken; the report names it
    5  the generator was late: the result is not valid
  130  interrupted; the report is partial

Environment:
  NO_COLOR  no colours";

const VERIFY_HELP: &str = "\
Examples:
  loadtest verify run.jsonl
  loadtest verify run.jsonl --json verdict.json
  loadtest verify run.jsonl --level fast
  loadtest verify run.jsonl --skew 0ms --sold-out-lag 0ms

Exit codes:
  0  every rule held
  1  a rule is broken; the lines of the history that show it are named
  2  the file cannot be judged, or the command line is wrong";

const VALIDATE_HELP: &str = "\
Examples:
  loadtest validate config/scenarios/flash-sale.toml

Exit codes:
    0  no problems
    2  problems; every one was printed";

const COMPLETIONS_HELP: &str = "\
Examples:
  loadtest completions bash > /etc/bash_completion.d/loadtest

Exit codes:
    0  printed
    2  the command line is wrong";

/// Open-loop load generator and checker for flash sales.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about, after_help = AFTER_HELP, disable_help_flag = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Print help
    // `-h` is the same: the short form has one line an option, and those are wider than a terminal.
    #[arg(short = 'h', long, global = true, action = clap::ArgAction::HelpLong)]
    help: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a scenario, check it against the order ledger, and judge it
    #[command(after_help = AFTER_HELP)]
    Run {
        /// Scenario file
        file: PathBuf,
        /// Send to this URL instead of the scenario's
        #[arg(long, value_name = "URL")]
        target: Option<String>,
        /// Write the report as JSON (schema/report.schema.json)
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Write the report as one HTML page
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Write every request and answer, for `loadtest verify`
        #[arg(long, value_name = "FILE")]
        history: Option<PathBuf>,
        /// No colours, no drawing in place
        #[arg(long)]
        plain: bool,
    },
    /// Judge a history: every promise, at every instant of it
    #[command(after_help = VERIFY_HELP)]
    Verify {
        /// History file
        file: PathBuf,
        /// Write the verdict as JSON
        #[arg(long, value_name = "OUT")]
        json: Option<PathBuf>,
        /// What an acknowledged order is worth, if not what the file says
        #[arg(long)]
        level: Option<Level>,
        /// How far the clocks of clients and server may differ
        #[arg(long, value_name = "TIME", value_parser = milliseconds)]
        skew: Option<u64>,
        /// How long "sold out" may be said from memory after units came back
        #[arg(long, value_name = "TIME", value_parser = milliseconds)]
        sold_out_lag: Option<u64>,
        /// How long returned units may take to be on sale again
        #[arg(long, value_name = "TIME", value_parser = milliseconds)]
        return_lag: Option<u64>,
    },
    /// Read a scenario and print every problem at once
    #[command(after_help = VALIDATE_HELP)]
    Validate {
        /// Scenario file
        file: PathBuf,
    },
    /// Print a completion script
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// Shell
        shell: Shell,
    },
}

/// Does what was asked; the exit code is the result.
pub async fn execute(cli: Cli) -> u8 {
    let done = match cli.command {
        Command::Validate { file } => Ok(match load(&file) {
            Ok(_) => {
                println!("{}: ok", file.display());
                Exit::Held.code()
            }
            Err(code) => code,
        }),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "loadtest",
                &mut std::io::stdout(),
            );
            Ok(Exit::Held.code())
        }
        Command::Run {
            file,
            target,
            json,
            html,
            history,
            plain,
        } => {
            let outputs = Outputs {
                json,
                html,
                history,
            };
            run(file, target, outputs, plain).await
        }
        Command::Verify {
            file,
            json,
            level,
            skew,
            sold_out_lag,
            return_lag,
        } => {
            let allow = |in_file: Level| {
                let mut allow = Allow::at(level.unwrap_or(in_file));
                allow.skew_ms = skew.unwrap_or(allow.skew_ms);
                allow.sold_out_lag_ms = sold_out_lag.unwrap_or(allow.sold_out_lag_ms);
                allow.return_lag_ms = return_lag.unwrap_or(allow.return_lag_ms);
                allow
            };
            return verify(&file, json.as_deref(), allow);
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("loadtest: {error:#}");
        if error.downcast_ref::<Problems>().is_some() {
            Exit::BadScenario.code()
        } else {
            Exit::CouldNotRun.code()
        }
    })
}

/// Where the results of a run go.
struct Outputs {
    json: Option<PathBuf>,
    html: Option<PathBuf>,
    history: Option<PathBuf>,
}

async fn run(
    file: PathBuf,
    target: Option<String>,
    outputs: Outputs,
    plain: bool,
) -> anyhow::Result<u8> {
    let mut scenario = match load(&file) {
        Ok(scenario) => scenario,
        Err(code) => return Ok(code),
    };
    if let Some(url) = target {
        scenario.target.url = url;
    }
    let mut live = Live::new(plain);
    let stop = async {
        // Without a signal handler the run simply cannot be interrupted. A supervisor's SIGTERM leaves a partial report too.
        let terminated = async {
            use tokio::signal::unix::{SignalKind, signal};
            match signal(SignalKind::terminate()) {
                Ok(mut signal) => {
                    signal.recv().await;
                }
                Err(_) => std::future::pending().await,
            }
        };
        let interrupted = async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = terminated => {}
            () = interrupted => {}
        }
    };
    scenario.history_file = outputs.history;
    let report = crate::run_and_check(&scenario, |progress| live.show(progress), stop).await?;
    live.end();
    if let Some(path) = outputs.json {
        std::fs::write(&path, render::json(&report))?;
    }
    if let Some(path) = outputs.html {
        std::fs::write(&path, render::html(&report))?;
    }
    print!("{}", render::text(&report, colored(plain)));
    Ok(report.exit_code)
}

/// Reads the scenario, or says what is wrong with it and gives the exit code for that.
fn load(file: &Path) -> Result<Scenario, u8> {
    Scenario::load(file).map_err(|error| {
        eprintln!("loadtest: {}: {error:#}", file.display());
        Exit::BadScenario.code()
    })
}

/// Judges a history; the exit code is the verdict.
fn verify(file: &Path, json: Option<&Path>, allow: impl FnOnce(Level) -> Allow) -> u8 {
    const HELD: u8 = 0;
    const BROKEN: u8 = 1;
    const BAD_INPUT: u8 = 2;
    let bad = |what: &dyn std::fmt::Display| {
        eprintln!("loadtest: {what}");
        BAD_INPUT
    };
    let mut told = false;
    let progress = |bytes: u64, all: u64| {
        told = true;
        eprint!("\rreading {} of {} MB", bytes >> 20, all >> 20);
    };
    let judged = oracle::verify_file(file, allow, progress);
    if told {
        eprintln!();
    }
    let (verdict, read) = match judged {
        Ok(judged) => judged,
        Err(error) => return bad(&format!("{}: {error}", file.display())),
    };
    if let Some(path) = json {
        let written = serde_json::to_vec_pretty(&verdict)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(path, text));
        if let Err(error) = written {
            return bad(&format!("--json {}: {error}", path.display()));
        }
    }
    print!(
        "{}",
        oracle::render(&verdict, &file.display().to_string(), read)
    );
    if verdict.held { HELD } else { BROKEN }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    settings::units::duration_ms(text)
        .ok_or_else(|| "must be a time such as 250ms or 5s".to_owned())
}

/// Whether standard output may have colours.
fn colored(plain: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !plain && !refused && std::io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_help_fits_a_terminal_of_80_columns() {
        let (mut command, mut wide) = (Cli::command(), Vec::new());
        command.build();
        let mut widest = |command: &mut clap::Command| {
            let help = command.render_long_help().to_string();
            let lines = help.lines().filter(|line| line.chars().count() > 80);
            wide.extend(lines.map(|line| format!("{}: {line}", command.get_name())));
        };
        widest(&mut command);
        command.get_subcommands_mut().for_each(widest);
        assert!(wide.is_empty(), "{wide:#?}");
    }
}

//! The command line: what can be asked, and what is told while a run goes on.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::live::Live;
use crate::report::{Exit, render};
use crate::scenario::{Problems, Scenario};

const AFTER_HELP: &str = "\
Examples:
  loadtest validate config/scenarios/flash-sale.toml
  loadtest run config/scenarios/flash-sale.toml
  loadtest run config/scenarios/constant.toml --target https://shop.example:8443 --json report.json
  loadtest run config/scenarios/ramp.toml --html report.html --plain
  loadtest completions bash > /etc/bash_completion.d/loadtest

Exit codes:
    0  everything held
    1  it could not run: no connection, nothing answered, or the ledger could not be asked
    2  the scenario or the command line is wrong
    3  a threshold of the scenario was missed
    4  an invariant is broken: oversold, duplicated, lost, phantom, paid mismatch, over limit
    5  the generator was late (schedule lag above its limit): the result is not valid
  130  interrupted; the report is partial

Environment:
  NO_COLOR  no colours";

/// Open-loop load generator and checker for flash sales.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, about, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
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
        /// No colours, no drawing in place
        #[arg(long)]
        plain: bool,
    },
    /// Read a scenario and print every problem at once
    Validate {
        /// Scenario file
        file: PathBuf,
    },
    /// Print a completion script
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
            plain,
        } => run(file, target, json, html, plain).await,
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

async fn run(
    file: PathBuf,
    target: Option<String>,
    json: Option<PathBuf>,
    html: Option<PathBuf>,
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
        // Without a signal handler the run simply cannot be interrupted.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let report = crate::run_and_check(&scenario, |progress| live.show(progress), stop).await?;
    live.end();
    if let Some(path) = json {
        std::fs::write(&path, render::json(&report))?;
    }
    if let Some(path) = html {
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

/// Whether standard output may have colours.
fn colored(plain: bool) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !plain && !refused && std::io::stdout().is_terminal()
}

//! The penstock program: arguments, configuration, runtime, build, log addresses, wait, drain.

use std::{path::Path, process::ExitCode};

use clap::FromArgMatches;
use gateway::{
    backup_cli,
    cli::{Cli, Command},
    config::Config,
    dead_letters_cli, help, logging, lottery_cli, sale_cli, services, signals, token_cli,
};
use tokio::runtime::{Builder, Runtime};
use tracing::{error, info, warn};

const FAILED: ExitCode = ExitCode::FAILURE;
const BAD_CONFIG: u8 = 2;

/// One may be busy decoding rows while the other serves what must be quick.
const CONTROL_THREADS: usize = 2;

/// What this program makes is for its owner and group: databases, journals, backups, logs and keys hold orders and people's addresses.
fn keep_files_private() {
    rustix::process::umask(rustix::fs::Mode::RWXO | rustix::fs::Mode::WGRP);
}

fn main() -> ExitCode {
    keep_files_private();
    // clap ends the process itself where the words are wrong or help is asked for.
    let cli = Cli::from_arg_matches(&help::command().get_matches());
    match cli.unwrap_or_else(|error| error.exit()).command {
        Command::Serve {
            config,
            role,
            trust_local_buyers,
        } => match load(&config) {
            Ok(mut config) => {
                if trust_local_buyers {
                    config.trust_local_buyers();
                }
                serve(Config { role, ..config })
            }
            Err(code) => code,
        },
        Command::Check { config } => match load(&config) {
            Ok(found) => {
                for warning in &found.warnings {
                    say(format_args!("warning: {warning}"));
                }
                say(format_args!("{}: no problems", config.display()));
                ExitCode::SUCCESS
            }
            Err(code) => code,
        },
        #[cfg(feature = "demo")]
        Command::Demo(args) => {
            logging::install_quiet();
            code(control().and_then(|runtime| runtime.block_on(gateway::demo::run(&args))))
        }
        Command::Sale { admin, command } => {
            let done =
                control().and_then(|runtime| runtime.block_on(sale_cli::run(&admin, &command)));
            finish(done.map(|()| true))
        }
        Command::DeadLetters { admin, command } => finish(
            control().and_then(|runtime| runtime.block_on(dead_letters_cli::run(&admin, &command))),
        ),
        Command::Token { admin, command } => {
            let done =
                control().and_then(|runtime| runtime.block_on(token_cli::run(&admin, &command)));
            finish(done.map(|()| true))
        }
        Command::Lottery { command } => {
            finish(control().and_then(|runtime| runtime.block_on(lottery_cli::run(&command))))
        }
        Command::Reconcile {
            admin,
            sale,
            dry_run,
        } => {
            let done = control().and_then(|runtime| {
                runtime.block_on(sale_cli::reconcile(&admin, sale.as_deref(), dry_run))
            });
            finish(done)
        }
        Command::Backup { admin, args } => finish(
            control()
                .and_then(|runtime| runtime.block_on(backup_cli::backup(&admin, &args)))
                .map(|()| true),
        ),
        Command::Restore(args) => {
            logging::install_quiet();
            finish(control().and_then(|runtime| runtime.block_on(backup_cli::restore(&args))))
        }
        Command::Openapi { api } => {
            say(format_args!("{:#}", api.document()));
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut help::command(),
                "penstock",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
    }
}

/// Serves until a signal comes.
fn serve(config: Config) -> ExitCode {
    logging::install();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let role = config.role;
    let served = control().and_then(|runtime| {
        let app = runtime.block_on(async {
            signals::survive_file_size_limit();
            // Before anything that takes time: a signal at a start must not kill either.
            let stop = signals::Stop::new();
            let (mut app, services) = services::build(config).await?;
            tokio::spawn(signals::heed(app.reopener()));
            let addresses = app.addresses();
            info!(listeners = ?addresses.listeners, admin = %addresses.admin, ?role, "serving");
            app.run_until(stop).await?;
            if let Some(services) = services {
                services.stop().await;
            }
            anyhow::Ok(app)
        })?;
        // Joins the cores' threads, so it must not happen on the runtime.
        drop(app);
        Ok(())
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "cannot serve");
            FAILED
        }
    }
}

/// The control runtime: admin, health checks, settlement, and the handlers that read SQL. All other requests run on the cores'
/// own.
fn control() -> anyhow::Result<Runtime> {
    Ok(Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?)
}

/// Reads the configuration, or prints what is wrong with it.
fn load(path: &Path) -> Result<Config, ExitCode> {
    Config::try_load(path).map_err(|error| {
        tell(format_args!("{error}"));
        ExitCode::from(BAD_CONFIG)
    })
}

/// Prints to standard output; who has stopped reading (`| head`) has what they wanted.
fn say(what: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// Prints to standard error. If nobody reads it (`2>&1 | head`), the exit code is what is left to tell: no panic.
fn tell(what: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{what}");
}

fn finish(done: anyhow::Result<bool>) -> ExitCode {
    code(done.map(|is_well| u8::from(!is_well)))
}

fn code(done: anyhow::Result<u8>) -> ExitCode {
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tell(format_args!("penstock: {error:#}"));
            FAILED
        }
    }
}

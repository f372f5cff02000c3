//! The penstock program: arguments, configuration, runtime, build, log addresses, wait, drain.

use std::{fmt::Arguments, io::Write, path::Path, process::ExitCode};

use clap::FromArgMatches;
use gateway::{
    cli::{self, Cli, Command},
    compose::{self, reload::Reloader},
    config::Config,
    logging, signals,
};
use tokio::runtime::{Builder, Runtime};
use tracing::{error, info, warn};

const FAILED: u8 = 1;
const BAD_CONFIG: u8 = 2;

/// One may be busy decoding rows while the other serves what must be quick.
const CONTROL_THREADS: usize = 2;

fn main() -> ExitCode {
    // What this program makes is for its owner and group: databases, journals, backups, logs and keys hold orders and people's addresses.
    rustix::process::umask(rustix::fs::Mode::RWXO | rustix::fs::Mode::WGRP);
    // clap ends the process itself where the words are wrong or help is asked for.
    let cli = Cli::from_arg_matches(&cli::help::command().get_matches());
    ExitCode::from(match cli.unwrap_or_else(|error| error.exit()).command {
        Command::Serve {
            config: path,
            role,
            trust_local_buyers,
            accept_clock: accepts_clock,
        } => {
            let for_serving = move |mut config: Config| {
                if trust_local_buyers {
                    config.trust_local_buyers();
                }
                Config {
                    role,
                    accepts_clock,
                    ..config
                }
            };
            load(&path).map_or(BAD_CONFIG, |config| {
                let again = move || Config::try_load(&path).map(for_serving);
                serve(for_serving(config), Reloader::new(again))
            })
        }
        Command::Check { config: path } => load(&path).map_or(BAD_CONFIG, |config| {
            for warning in &config.warnings {
                say(format_args!("warning: {warning}"));
            }
            say(format_args!("{}: no problems", path.display()));
            0
        }),
        command => {
            let done = control().and_then(|runtime| runtime.block_on(cli::run(command)));
            done.unwrap_or_else(|error| {
                tell(format_args!("penstock: {error:#}"));
                FAILED
            })
        }
    })
}

/// Serves until a signal comes.
fn serve(config: Config, reloader: Reloader) -> u8 {
    logging::install();
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let role = config.role;
    let served = control().and_then(|runtime| {
        let app = runtime.block_on(async {
            signals::survive_file_size_limit();
            // Before anything that takes time: a signal at a start must not kill either.
            let mut stop = signals::Stop::new();
            let (mut app, services) = tokio::select! {
                biased;
                built = compose::build(config) => built?,
                // Nothing is served yet, so nothing is drained.
                () = stop.asked() => return Ok(None),
            };
            app.reload_by(reloader.clone());
            tokio::spawn(signals::heed(app.reopener(), move || {
                let reloader = reloader.clone();
                // What comes of it is in the log.
                async move { drop(reloader.reload().await) }
            }));
            let addresses = app.addresses();
            info!(listeners = ?addresses.listeners, admin = %addresses.admin, ?role, "serving");
            let failed = async {
                match &services {
                    Some(services) => services.refused().await,
                    None => std::future::pending().await,
                }
            };
            app.run_until(stop, failed).await?;
            if let Some(services) = services {
                services.stop().await?;
            }
            anyhow::Ok(Some(app))
        })?;
        // Joins the cores' threads, so it must not happen on the runtime.
        drop(app);
        Ok(())
    });
    match served {
        Ok(()) => 0,
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
fn load(path: &Path) -> Option<Config> {
    Config::try_load(path)
        .inspect_err(|error| tell(format_args!("{error}")))
        .ok()
}

/// Prints to standard output; who has stopped reading (`| head`) has what they wanted.
fn say(what: Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{what}");
}

/// Prints to standard error. If nobody reads it (`2>&1 | head`), the exit code is what is left to tell: no panic.
fn tell(what: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

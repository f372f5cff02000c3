//! The penstock program: arguments, configuration, runtime, build, log addresses, wait, drain.

use std::{path::Path, process::ExitCode};

use clap::{CommandFactory, Parser};
use gateway::{
    app::{App, Handlers},
    cli::{Cli, Command},
    config::{Config, Role},
    logging, signals,
};
use tokio::runtime::Builder;
use tracing::{error, info};

const FAILED: ExitCode = ExitCode::FAILURE;
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Serve { config, role } => serve(&config, role),
        Command::Check { config } => match load(&config) {
            Ok(_) => {
                println!("{}: no problems", config.display());
                ExitCode::SUCCESS
            }
            Err(code) => code,
        },
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "penstock",
                &mut std::io::stdout(),
            );
            ExitCode::SUCCESS
        }
    }
}

/// Serves until a signal comes.
fn serve(path: &Path, role: Role) -> ExitCode {
    let config = match load(path) {
        Ok(config) => Config { role, ..config },
        Err(code) => return code,
    };
    logging::install();
    // The control runtime: admin, health checks, settlement. Requests run on the cores' own.
    let runtime = match Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "no runtime");
            return FAILED;
        }
    };
    let served = runtime.block_on(async {
        let mut app = App::try_new(config, Handlers::default())?;
        let addresses = app.addresses();
        info!(listeners = ?addresses.listeners, admin = %addresses.admin, ?role, "serving");
        app.run(signals::shutdown()).await
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "cannot serve");
            FAILED
        }
    }
}

/// Reads the configuration, or prints what is wrong with it.
fn load(path: &Path) -> Result<Config, ExitCode> {
    Config::try_load(path).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(BAD_CONFIG)
    })
}

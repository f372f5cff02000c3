//! `penstock backup` and `penstock restore`: copies a node's store and ledger, as they were at one instant, into a folder, and restores them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use clap::Args;
use http::Method;
use seckill::{backup, clock::WallClock};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::client::{Admin, Output, call};

/// How often the node is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Where a backup goes.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// Folder on the machine of the node; new, or empty
    #[arg(long)]
    to: PathBuf,
}

/// What is restored, and where.
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// Folder of the backup
    #[arg(long)]
    from: PathBuf,
    /// Folder of the new store, as in `seckill.store`; new, or empty
    #[arg(long)]
    to: PathBuf,
    /// File of the new ledger [default: penstock.db in that folder]
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// How the result is printed.
    #[command(flatten)]
    output: Output,
}

/// Asks a running node for a backup, waits until it is whole, and prints its manifest.
pub(super) async fn backup(admin: &Admin, args: &BackupArgs) -> anyhow::Result<()> {
    let to =
        std::path::absolute(&args.to).with_context(|| format!("--to {}", args.to.display()))?;
    call(admin, Method::POST, "/admin/v1/backup", json!({"to": to})).await?;
    let mut told = 0;
    loop {
        let state = call(admin, Method::GET, "/admin/v1/backup", Value::Null).await?;
        match state["state"].as_str() {
            Some("done") => return admin.output.print(&state["manifest"]),
            Some("running") => {
                let bytes = |key: &str| state[key].as_u64().unwrap_or_default();
                let (done, total) = (bytes("bytes_done"), bytes("bytes_total").max(1));
                if done != told {
                    told = done;
                    eprintln!(
                        "{:>3} %  {done} of {total} bytes",
                        done.min(total) * 100 / total
                    );
                }
            }
            // The folder may hold half a backup or an earlier whole one. Its manifest shows which: it is written last.
            _ => bail!(
                "no backup was taken: {}; a folder without manifest.json is no backup",
                state["error"].as_str().unwrap_or("the node was restarted"),
            ),
        }
        sleep(ASK_EVERY).await;
    }
}

/// Restores a backup, compares store and ledger, and prints what was found; false if they do not agree.
pub(super) async fn restore(args: &RestoreArgs) -> anyhow::Result<bool> {
    let ledger = match &args.ledger {
        Some(file) => file.clone(),
        None => args.to.join("penstock.db"),
    };
    let clock: WallClock = Arc::new(|| {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    });
    let restored = backup::restore(&args.from, &args.to, &ledger, clock).await?;
    let sales: Vec<Value> = restored
        .sales
        .iter()
        .map(|(sale, findings)| json!({"sale": sale, "ok": findings.is_empty(), "findings": findings}))
        .collect();
    let is_well = restored
        .sales
        .iter()
        .all(|(_, findings)| findings.is_empty());
    args.output.print(&json!({
        "ok": is_well,
        "store": shown(&args.to),
        "ledger": shown(&ledger),
        "manifest": restored.manifest,
        "sales": sales,
    }))?;
    Ok(is_well)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

//! A node with an embedded store claims its ledger before it sells anything. The store of another installation, on the same ledger, has
//! a stock of its own: where both think that they are at the same folder, one was rebuilt from what the other had sold.

use std::path::{Path, PathBuf};

use super::RebuildElsewhere;
use stock::embedded;

use crate::ledger::{LedgerError, OrderLedger, Registered, Replace};

/// Why a node must not start.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The ledger gave no answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The name of the installation cannot be read or written.
    #[error("{0}: {1}")]
    Folder(PathBuf, #[source] std::io::Error),
    /// The ledger is that of another installation. The configuration is at fault, or that installation is gone.
    #[error(
        "the ledger belongs to the embedded store of another installation, {} at {} since {} ms; here is {ours} at {here}, and both would \
         sell the same units: give this node a ledger of its own or the folder of that store, or, if that store is gone for good, set \
         rebuild_elsewhere = true for one start", other.install, other.address, other.at_ms
    )]
    OtherInstall {
        /// Who is registered.
        other: Registered,
        /// The installation of this node.
        ours: String,
        /// Its host and folder.
        here: String,
    },
}

/// Registers the open store in `folder` on this host as the one that sells from the ledger.
pub async fn claim(
    ledger: &OrderLedger,
    folder: &Path,
    host: &str,
    elsewhere: RebuildElsewhere,
    now_ms: u64,
) -> Result<(), ClaimError> {
    let at = |error| ClaimError::Folder(folder.to_owned(), error);
    let install = embedded::installation(folder).map_err(at)?;
    let whole = std::path::absolute(folder).map_err(at)?;
    let here = format!("{host}:{}", whole.display());
    let replace = match elsewhere {
        RebuildElsewhere::Allowed => Replace::Any,
        // The disk of the same node was lost, and its store is rebuilt from the ledger.
        RebuildElsewhere::Refused => Replace::SameAddress,
    };
    let registered = ledger.register_install(&install, &here, replace, now_ms);
    let registered = registered.await?;
    if registered.install == install {
        return Ok(());
    }
    Err(ClaimError::OtherInstall {
        other: registered,
        ours: install,
        here,
    })
}

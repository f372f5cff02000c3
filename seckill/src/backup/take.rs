//! Taking a backup of a node that runs.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{AnyConnection, Connection, Executor};
use stock::embedded::{EmbeddedStore, Image};

use super::{
    BackupError, FileSum, Manifest, at, ledger_file,
    manifest::{LEDGER, MANIFEST, STORE},
};

/// How often the ledger's copy is looked at for its first bytes; the calls that wait meanwhile wait so much longer at most.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// How far it has come. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    done: Arc<AtomicU64>,
    total: Arc<AtomicU64>,
}

impl Progress {
    fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes written and checked so far, and how many are known to come.
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.done.load(Ordering::Relaxed),
            self.total.load(Ordering::Relaxed),
        )
    }
}

/// Copies ledger and store at one instant into a folder that does not exist yet, or is empty.
pub async fn take(
    store: &EmbeddedStore,
    ledger_url: &str,
    to: &Path,
    now_ms: u64,
    progress: &Progress,
) -> Result<Manifest, BackupError> {
    let source = ledger_file(ledger_url)?;
    let is_empty =
        |folder: &Path| std::fs::read_dir(folder).map(|mut found| found.next().is_none());
    if to.exists() && !is_empty(to).unwrap_or(false) {
        return Err(BackupError::Exists(to.to_owned()));
    }
    std::fs::create_dir_all(to).map_err(at(to))?;
    let image = copy_both(store, &source, &to.join(LEDGER)).await?;
    let (folder, progress) = (to.to_owned(), progress.clone());
    let rest = tokio::task::spawn_blocking(move || finish(&folder, &image, now_ms, &progress));
    rest.await
        .map_err(|error| BackupError::Ledger(error.to_string()))?
}

/// Copies the ledger with SQLite's own words, and takes the store's image at the same instant.
async fn copy_both(
    store: &EmbeddedStore,
    source: &Path,
    copy: &Path,
) -> Result<Image, BackupError> {
    let failed = |error: sqlx::Error| BackupError::Ledger(error.to_string());
    let url = format!("sqlite:{}?mode=ro", source.display());
    let mut connection = AnyConnection::connect(&url).await.map_err(failed)?;
    let statement = format!(
        "VACUUM INTO '{}'",
        copy.display().to_string().replace('\'', "''")
    );
    let copying = async move {
        let copied = connection.execute(sqlx::AssertSqlSafe(statement)).await;
        copied.map(drop).map_err(failed)
    };
    // SQLite takes its instant before it writes the first byte of the copy.
    let has_begun = || std::fs::metadata(copy).is_ok_and(|file| file.len() > 0);
    at_one_instant(store, copying, has_begun).await
}

/// The ledger's instant first, the store's second, and nothing that the ledger causes in the store between them. `has_begun` says
/// when the ledger's instant has passed; from then on the ledger may go on while its copy is written.
async fn at_one_instant(
    store: &EmbeddedStore,
    copying: impl Future<Output = Result<(), BackupError>> + Send + 'static,
    has_begun: impl Fn() -> bool,
) -> Result<Image, BackupError> {
    let held = store.hold_ledger_calls().await;
    let mut copying = tokio::spawn(copying);
    let mut copied = None;
    while !has_begun() {
        tokio::select! {
            done = &mut copying => {
                copied = Some(done);
                break;
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    let image = store.image().await;
    drop(held);
    let copied = match copied {
        Some(done) => done,
        None => copying.await,
    };
    copied.map_err(|error| BackupError::Ledger(error.to_string()))??;
    Ok(image?)
}

fn finish(
    folder: &Path,
    image: &Image,
    now_ms: u64,
    progress: &Progress,
) -> Result<Manifest, BackupError> {
    // Written already, and still to be read for its checksum.
    let ledger = folder.join(LEDGER);
    let ledger_bytes = std::fs::metadata(&ledger).map_err(at(&ledger))?.len();
    progress.expect(2 * ledger_bytes);
    progress.add(ledger_bytes);
    let path = folder.join(STORE);
    let file = File::create_new(&path).map_err(at(&path))?;
    let mut told = 0;
    let written = image.write(BufWriter::with_capacity(1 << 20, &file), |bytes| {
        progress.expect(2 * (bytes - told));
        progress.add(bytes - told);
        told = bytes;
        Ok(())
    });
    written.map_err(at(&path))?;
    file.sync_all().map_err(at(&path))?;
    File::open(&ledger)
        .and_then(|file| file.sync_all())
        .map_err(at(&ledger))?;
    let (accepted, unsettled) = image.orders();
    let manifest = Manifest {
        format: Manifest::format(),
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        taken_at_ms: now_ms,
        ledger: FileSum::of(&ledger, |bytes| progress.add(bytes))?,
        store: FileSum::of(&path, |bytes| progress.add(bytes))?,
        segments: image.segments() as u64,
        accepted,
        unsettled,
    };
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| BackupError::Ledger(error.to_string()))?;
    let last = folder.join(MANIFEST);
    // The names of the files first: a manifest must never outlive what it describes.
    sync_names(folder)?;
    let mut file = File::create_new(&last).map_err(at(&last))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(at(&last))?;
    sync_names(folder)?;
    Ok(manifest)
}

fn sync_names(folder: &Path) -> Result<(), BackupError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(at(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{OrderId, SaleId, SegmentId, SkuId};
    use stock::{
        Purchase, SegmentSpec, Segments, Selling,
        embedded::{Options, SyncPolicy, WriteMode},
    };

    /// INV-STOCK-1: whatever reaches the ledger before its copy begins is in the store's copy.
    #[tokio::test]
    async fn the_stores_instant_is_never_before_the_ledgers() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            folder: folder.path().to_owned(),
            sync: SyncPolicy::Durable,
            write_mode: WriteMode::Plain,
        };
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let store = EmbeddedStore::open(&options, Arc::new(move || now)).unwrap();
        let spec = SegmentSpec {
            id: SegmentId::first(SaleId::try_new("s").unwrap(), SkuId::try_new("k").unwrap()),
            stock: 5,
            starts_at_ms: 0,
            ends_at_ms: u64::MAX >> 16,
            buyer_limit: 1,
            pay_within_ms: 1_000,
            durability: None,
        };
        store.open(&spec).await.unwrap();
        let (buyer, id) = (store.clone(), spec.id.clone());
        let copying = async move {
            let purchase = Purchase {
                order: OrderId::from_u128(1),
                buyer: "b".parse().unwrap(),
                request: "r".parse().unwrap(),
                fingerprint: 1,
                quantity: 1,
                metadata: None,
            };
            let bought = buyer.buy_many(&id, 1, vec![purchase]).await;
            bought.map(drop).map_err(BackupError::Store)
        };
        let image = at_one_instant(&store, copying, || false).await.unwrap();
        assert_eq!(image.orders(), (1, 1));
    }
}

//! Backup in mid-sale under load, restore elsewhere, sell on: with the real program, judged from the client's own history.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    crash::{STOCK, create_sale, judge, load, scenario, until_accepted},
    process::{Penstock, eventually},
};

fn penstock(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
    command.args(arguments).output().unwrap()
}

/// Runs a command without holding up the load beside it.
async fn run(arguments: Vec<String>) -> Output {
    let ran = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        penstock(&arguments)
    });
    ran.await.unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn stores(folder: &Path) -> String {
    format!(
        "store = \"embedded:{0}\"\nledger = \"sqlite:{0}/penstock.db\"\ndurability = \"durable\"\nsnapshot_every = \"64KiB\"",
        folder.display()
    )
}

fn json(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn report(penstock: &Penstock) -> Value {
    let admin = format!("http://{}", penstock.admin);
    let arguments = ["sale", "show", "--admin", &admin, "crash"].map(str::to_owned);
    json(&run(arguments.into()).await)["report"].clone()
}

#[tokio::test]
async fn a_backup_taken_in_mid_sale_is_restored_elsewhere_and_sells_exactly_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let [first, second, copy] = ["first", "second", "copy"].map(place);
    std::fs::create_dir_all(&first).unwrap();
    let mut old = Penstock::start(&first, &stores(&first.join("data"))).await;
    create_sale(old.admin);
    let admin = format!("http://{}", old.admin);
    let backup = |to: &Path| {
        let arguments = ["backup", "--admin", &admin, "--to", text(to)];
        run(arguments.map(str::to_owned).into())
    };
    let first_load = scenario(&old);
    let (output, taken) = tokio::join!(load(&first_load), async {
        until_accepted(old.admin, STOCK / 8).await;
        backup(&copy).await
    });
    let manifest = json(&taken);
    let accepted = manifest["accepted"].as_u64().unwrap();
    assert!(0 < accepted && accepted < STOCK, "in mid-sale: {manifest}");
    // The old line goes on and sells out; then its machine is gone.
    judge(&old, &first_load, output).await;
    let again = backup(&copy).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing is overwritten"));
    old.process.kill();

    std::fs::create_dir_all(&second).unwrap();
    let data = second.join("data");
    let restore = ["restore", "--from", text(&copy), "--to", text(&data)];
    let restored = json(&penstock(&restore));
    assert_eq!(restored["ok"], true, "{restored}");
    let refused = penstock(&restore);
    assert_eq!(refused.status.code(), Some(1), "nothing is overwritten");

    let new = Penstock::start(&second, &stores(&data)).await;
    eventually("what was accepted before the backup is settled", || async {
        let report = report(&new).await;
        report["queue_depth"] == 0 && report["settled"].as_u64() == Some(accepted)
    })
    .await;
    let held = report(&new).await;
    assert_eq!(
        held["skus"][0]["available"].as_u64(),
        Some(STOCK - accepted),
        "{held}"
    );
    let mut second_load = scenario(&new);
    second_load.seed = 12;
    second_load.buyers.count = 6_000;
    let output = load(&second_load).await;
    let admin = format!("http://{}", new.admin);
    eventually("the rest is sold", || async {
        let report = report(&new).await;
        report["queue_depth"] == 0 && report["settled"].as_u64() == Some(STOCK)
    })
    .await;
    assert!(output.report.count(loadtest::Outcome::Accepted) <= STOCK - accepted);
    let all_well = json(&penstock(&["reconcile", "--admin", &admin, "crash"]));
    assert_eq!(all_well["ok"], true, "{all_well}");
}

#[tokio::test]
async fn a_damaged_or_unfinished_backup_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (copy, target) = (folder.path().join("copy"), folder.path().join("target"));
    let old = Penstock::start(folder.path(), &stores(&folder.path().join("data"))).await;
    create_sale(old.admin);
    let admin = format!("http://{}", old.admin);
    json(
        &run(["backup", "--admin", &admin, "--to", text(&copy)]
            .map(str::to_owned)
            .into())
        .await,
    );
    let refused = || {
        let output = penstock(&["restore", "--from", text(&copy), "--to", text(&target)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!target.exists(), "nothing was written");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for name in ["store.snapshot", "ledger.db"] {
        let file = copy.join(name);
        let whole = std::fs::read(&file).unwrap();
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        std::fs::write(&file, damaged).unwrap();
        let told = refused();
        assert!(told.contains(name) && told.contains("SHA-256"), "{told}");
        std::fs::write(&file, whole).unwrap();
    }
    std::fs::remove_file(copy.join("manifest.json")).unwrap();
    assert!(refused().contains("never finished"));
}

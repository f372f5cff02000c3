//! A ledger that goes back in time: its database, as it was some moments ago, in its own place; or a standby that lagged.

use tokio::time::{Duration, sleep};

use super::restart;
use crate::{
    bench::Bench,
    plan::{Damage, Target},
    recorder::HistoryRecorder,
};

/// Copies the database, lets it be written for a while, and puts the copy in its place. Nodes lose their connections, and for a moment
/// there is no database.
pub async fn go_back(lasts: Duration, bench: &Bench, recorder: &HistoryRecorder, what: &str) {
    let (server, database, copy) = bench.ledger();
    let copy = copy.display().to_string();
    server.ask("pg_dump", &["-Fc", "-f", &copy, database]).await;
    sleep(lasts).await;
    let number = recorder.breaks("ledger", what);
    server
        .ask("dropdb", &["--force", "--if-exists", database])
        .await;
    // Under another name until it is whole: nobody must find a ledger without orders and begin to lay tables.
    let made = format!("{database}_back");
    server.ask("createdb", &[&made]).await;
    server.ask("pg_restore", &["-d", &made, &copy]).await;
    let rename = format!("ALTER DATABASE {made} RENAME TO {database}");
    server.ask("psql", &["-d", "postgres", "-c", &rename]).await;
    recorder.mends(number, "ledger", what);
}

/// Cuts the standby off, lets the primary commit for a while without it, kills the primary, and puts the promoted standby at its
/// address.
pub async fn promote(lasts: Duration, bench: &Bench, recorder: &HistoryRecorder, what: &str) {
    let standby = bench.standby();
    let process = bench.process(Target::Postgres);
    let mut process = process.lock().await;
    // Of a standby that never had the tables nobody could make a ledger.
    standby.has_caught_up().await;
    let number = recorder.breaks("standby", what);
    standby.link.damage(Damage::Cut);
    sleep(lasts).await;
    process.kill();
    let arguments = standby.take_over().await;
    process.set_arguments(arguments);
    restart(&mut process).await;
    bench.has_recovered().await;
    recorder.mends(number, "standby", what);
}

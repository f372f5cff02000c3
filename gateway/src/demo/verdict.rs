//! What the demo concludes, from the report of its load and from what reached the shop.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use loadtest::{Report, render, report::Summary};

use super::DemoArgs;

/// Exit codes of the demo.
const HELD: u8 = 0;
const BROKEN: u8 = 1;
const INTERRUPTED: u8 = 130;

/// The events that the shop got.
pub(super) struct Deliveries {
    pub(super) signed: u64,
    pub(super) forged: u64,
    /// Not delivered in time.
    pub(super) pending: u64,
}

/// Prints and writes the verdict, and gives the exit code.
pub(super) fn conclude(
    args: &DemoArgs,
    json: Option<std::fs::File>,
    report: &Report,
    deliveries: &Deliveries,
) -> anyhow::Result<u8> {
    let colored =
        !args.plain && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let summary = report.summary();
    let broken = broken(args, report, &summary, deliveries);
    let mut text = format!("\n{}", render::text(report, colored));
    text.push_str(&format!(
        "\nthe shop was told of {} orders settled, paid or released, all signed\n\n",
        deliveries.signed
    ));
    for (name, value) in [
        ("units on sale", summary.stock),
        ("accepted", summary.accepted),
        ("settled", summary.settled),
        ("paid", summary.paid),
        ("returned", summary.returned),
        ("oversold", summary.oversold),
        ("duplicated", summary.duplicated),
        ("lost", summary.lost),
        ("limited", report.count(loadtest::Outcome::Limited)),
        ("sold-out answers", report.count(loadtest::Outcome::SoldOut)),
    ] {
        text.push_str(&format!("  {name:<18}{value:>8}\n"));
    }
    if summary.accepted > summary.stock {
        text.push_str(&format!(
            "\n{} orders for {} units: {} were not paid in time and went back on sale,\nwhere others bought them\n",
            summary.accepted, summary.stock, summary.returned
        ));
    }
    let code = match (report.interrupted, broken.is_empty()) {
        (true, _) => INTERRUPTED,
        (false, true) => HELD,
        (false, false) => BROKEN,
    };
    text.push_str(&match code {
        HELD => "\nVERDICT: every invariant held\n".to_owned(),
        BROKEN => format!("\nVERDICT: broken\n  {}\n", broken.join("\n  ")),
        _ => "\ninterrupted: no verdict\n".to_owned(),
    });
    super::print(&text)?;
    if let Some(mut file) = json {
        let document = serde_json::to_string_pretty(&summary)?;
        writeln!(file, "{document}").context("--json")?;
    }
    Ok(code)
}

/// Every promise that was not kept, in words.
fn broken(
    args: &DemoArgs,
    report: &Report,
    summary: &Summary,
    deliveries: &Deliveries,
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    expect(
        report.exit_code == 0,
        format!("the load test ended with code {}", report.exit_code),
    );
    expect(
        summary.oversold == 0,
        format!("INV-STOCK-1: {} units oversold", summary.oversold),
    );
    expect(
        summary.duplicated == 0,
        format!(
            "INV-ORDER-1: {} requests with two orders",
            summary.duplicated
        ),
    );
    expect(
        summary.lost == 0,
        format!("INV-ORDER-3: {} acknowledged orders lost", summary.lost),
    );
    expect(
        summary.settled == summary.accepted,
        format!("{} accepted, {} settled", summary.accepted, summary.settled),
    );
    // Every buyer wants one: with demand above the stock, all of it must have been sold at least once.
    let demand = u64::from(args.buyers) * 9 / 10;
    let must_sell = args.stock.min(demand);
    expect(
        summary.accepted >= must_sell,
        format!("undersold: {} of {must_sell}", summary.accepted),
    );
    expect(
        summary.paid + summary.returned == summary.settled,
        format!(
            "{} settled, but {} paid and {} returned",
            summary.settled, summary.paid, summary.returned
        ),
    );
    expect(
        deliveries.pending == 0 && deliveries.forged == 0,
        format!(
            "{} events did not reach the shop, {} had no good signature",
            deliveries.pending, deliveries.forged
        ),
    );
    broken
}

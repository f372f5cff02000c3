//! Drawing a lottery, and calling its reserve.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Engine, bad,
    extract::{Document, Stored},
    pending::NotDone,
};
use crate::{
    api::problem::{Code, Problem},
    engine::{DrawRefused, Drawn},
    ids::SaleId,
    lottery::{BEACON_MAX, Seed},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reveal {
    seed: String,
    #[serde(default)]
    beacon: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    round: u32,
    winners: u64,
}

pub(super) async fn draw(
    State(engine): Engine,
    Stored(sale): Stored,
    Document(reveal): Document<Reveal>,
) -> Result<Json<Value>, NotDone> {
    let seed = Seed::from_hex(&reveal.seed).ok_or_else(|| {
        // The value is a secret, even one that is misspelt.
        bad("seed", "…", "64 hexadecimal digits")
    })?;
    let is_text = reveal.beacon.bytes().all(|byte| byte.is_ascii_graphic());
    if reveal.beacon.len() > BEACON_MAX || !is_text {
        let allowed = format!("at most {BEACON_MAX} visible ASCII characters");
        return Err(bad("beacon", reveal.beacon, allowed).into());
    }
    let drawn = engine.draw(&sale, &seed, &reveal.beacon).await?;
    Ok(answer(&sale.id, drawn)?)
}

pub(super) async fn call_reserve(
    State(engine): Engine,
    Stored(sale): Stored,
    Document(call): Document<Call>,
) -> Result<Json<Value>, NotDone> {
    let drawn = engine.draw_again(&sale, call.round, call.winners).await?;
    Ok(answer(&sale.id, drawn)?)
}

fn answer(sale: &SaleId, drawn: Drawn) -> Result<Json<Value>, Problem> {
    let refused = match drawn {
        Ok(round) => {
            let mut document = json!(round);
            document["sale"] = json!(sale);
            return Ok(Json(document));
        }
        Err(refused) => refused,
    };
    Err(match refused {
        DrawRefused::NoLottery => Problem::new(Code::NoLottery, "this sale has no lottery"),
        DrawRefused::NotPublished => Problem::new(Code::NotEditable, "the sale is not published"),
        DrawRefused::StillOpen { closes_at_ms } => Problem::new(
            Code::NotDrawnYet,
            format!("entries are taken until {closes_at_ms} (unix milliseconds)"),
        ),
        DrawRefused::WrongSeed => bad("seed", "…", "the seed of the published commitment"),
        DrawRefused::Beacon { is_announced: true } => {
            bad("beacon", "", "the beacon that was announced")
        }
        DrawRefused::Beacon {
            is_announced: false,
        } => bad("beacon", "…", "empty: none was announced"),
        DrawRefused::Sealed => Problem::new(
            Code::VersionConflict,
            "the lottery was sealed with another beacon",
        ),
        DrawRefused::NotDrawn => Problem::new(Code::NotDrawnYet, "draw the lottery first"),
        DrawRefused::Round { next } => bad("round", "", format!("{next}, which is the next one")),
        DrawRefused::Winners { most } => {
            let allowed = format!("from 1 to {most}: entries, units and winners that are left");
            bad("winners", "", allowed)
        }
    })
}

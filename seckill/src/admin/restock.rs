//! Adding units to a sale that is on.

use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use stock::Gate;

use super::{
    Engine, bad,
    extract::{Document, OnSale},
    invalid,
    pending::NotDone,
};
use crate::{
    api::problem::{Code, Problem},
    ids::SkuId,
    ledger::{Restock, Restocked},
    sale::Problems,
    units::MAX_UNITS,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RestockBody {
    sku: String,
    units: i128,
    id: String,
}

pub(super) async fn restock(
    State(engine): Engine,
    OnSale(sale): OnSale,
    Document(body): Document<RestockBody>,
) -> Result<Json<Value>, NotDone> {
    if sale.gate == Gate::Closed {
        let detail = "a closed sale stays closed; create a new one";
        return Err(Problem::new(Code::Ended, detail).into());
    }
    let mut problems = Problems::default();
    problems.number("units", Some(body.units), 1, i128::from(MAX_UNITS));
    // The id becomes a key of the store, so it obeys the rules of a sku's name.
    problems.id("id", Some(&body.id), SkuId::try_new);
    if !problems.0.is_empty() {
        return Err(invalid(problems.0).into());
    }
    let sku = SkuId::try_new(&body.sku).map_err(|_| {
        let detail = format!("sku: {:?} is not on sale here", body.sku);
        Problem::new(Code::NoSuchSku, detail)
    })?;
    let restock = Restock {
        sku,
        id: body.id,
        units: body.units as u64,
    };
    let problem = match engine.restock(&sale, &restock).await? {
        outcome @ (Restocked::Added | Restocked::Repeated) => {
            return Ok(Json(
                json!({"sale": sale.id, "sku": restock.sku, "id": restock.id, "units": restock.units,
                    "added": outcome == Restocked::Added}),
            ));
        }
        Restocked::Conflict => Problem::new(
            Code::KeyReused,
            "this restock id was used for another number of units",
        ),
        Restocked::UnknownSku => Problem::new(
            Code::NoSuchSku,
            format!("sku: {} is not on sale here", restock.sku),
        ),
        Restocked::TooMany { rest } => {
            let allowed = format!("at most {rest}, the rest of what one sku may ever have");
            bad("units", restock.units, allowed)
        }
    };
    Err(problem.into())
}

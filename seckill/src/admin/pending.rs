//! A change that the ledger has and the store does not have yet: it is no refusal, and it is not done.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;

use crate::{api::problem::Problem, engine::EngineError};

/// Why a change is not in force when its call is answered.
pub(super) enum NotDone {
    /// Nothing was changed.
    Refused(Problem),
    /// It is in the ledger; what kept it from the store or from this node.
    Pending(EngineError),
}

impl From<Problem> for NotDone {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<EngineError> for NotDone {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Pending(error) => Self::Pending(*error),
            other => Self::Refused(other.into()),
        }
    }
}

impl IntoResponse for NotDone {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(problem) => problem.into_response(),
            Self::Pending(reason) => {
                tracing::warn!(%reason, "a change is in the ledger and not in force yet, trying again");
                let told = "the ledger has it; it is in force a few seconds after the store answers again, without another call";
                let document = json!({"pending": told, "reason": reason.to_string()});
                (StatusCode::ACCEPTED, Json(document)).into_response()
            }
        }
    }
}

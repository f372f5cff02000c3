//! How many arrivals a scenario asks for, and of what.

use super::{Curve, Scenario, Shape};

/// The arrivals of a scenario.
pub(crate) struct Arrivals {
    pub curve: Curve,
    /// Page views and purchases of buyers together.
    pub all: u64,
    /// Page views among them.
    pub pages: u64,
    pub bot_purchases: u32,
}

impl Arrivals {
    /// Purchases of buyers and bots.
    pub(super) fn purchases(&self) -> u64 {
        self.all - self.pages + u64::from(self.bot_purchases)
    }
}

impl Scenario {
    /// The arrivals that the profile asks for, and those of bots.
    pub(crate) fn arrivals(&self) -> Arrivals {
        let share = match self.sale {
            Some(_) => self.page_views.share,
            None => 1.0,
        };
        let curve = Curve::new(&self.profile.shape);
        let (all, pages) = match self.profile.shape {
            Shape::Spike { .. } => {
                let buyers = u64::from(self.buyers.count);
                let pages = (buyers as f64 * share / (1.0 - share).max(1e-9)).round() as u64;
                (buyers + pages, pages)
            }
            Shape::Constant { .. } | Shape::Ramp { .. } => {
                // The tiny addend keeps 0.1 × 10 s from becoming 0 arrivals by rounding.
                let all = (curve.total() + 1e-9).floor() as u64;
                (all, (all as f64 * share).round() as u64)
            }
        };
        Arrivals {
            curve,
            all,
            pages,
            bot_purchases: self.bots.count.saturating_mul(self.bots.burst),
        }
    }
}

impl Shape {
    /// From T0 to the last arrival.
    pub(crate) fn duration(&self) -> std::time::Duration {
        match self {
            Shape::Constant { duration, .. }
            | Shape::Ramp { duration, .. }
            | Shape::Spike { duration, .. } => *duration,
        }
    }
}

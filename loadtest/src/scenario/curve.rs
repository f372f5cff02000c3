//! The curve of arrivals as a closed form: which instant belongs to which share of the arrivals.

use super::Shape;

/// Inverse of the cumulative arrival curve.
#[derive(Clone, Debug)]
pub(crate) enum Curve {
    /// Arrivals evenly over the length.
    Constant { rate: f64, length: f64 },
    /// Rate changing linearly.
    Ramp {
        /// Per second at the start.
        from: f64,
        /// Per second at the end.
        to: f64,
        length: f64,
    },
    /// Exponential decay after T0, cut at the length. The total is the number of buyers, known to the plan.
    Decay {
        /// Decay per second; 0 is an even spread.
        lambda: f64,
        length: f64,
    },
}

impl Curve {
    /// The curve of a shape.
    pub(crate) fn new(shape: &Shape) -> Curve {
        match shape {
            Shape::Constant { rate, duration } => Curve::Constant {
                rate: *rate,
                length: duration.as_secs_f64(),
            },
            Shape::Ramp { from, to, duration } => Curve::Ramp {
                from: *from,
                to: *to,
                length: duration.as_secs_f64(),
            },
            Shape::Spike {
                duration,
                first_share,
                first_within,
                ..
            } => Curve::Decay {
                lambda: decay(
                    *first_share,
                    first_within.as_secs_f64(),
                    duration.as_secs_f64(),
                ),
                length: duration.as_secs_f64(),
            },
        }
    }

    /// Expected number of arrivals; 1 for the decay, whose total is given from outside.
    pub(crate) fn total(&self) -> f64 {
        match self {
            Curve::Constant { rate, length } => rate * length,
            Curve::Ramp { from, to, length } => (from + to) / 2.0 * length,
            Curve::Decay { .. } => 1.0,
        }
    }

    /// The instant, in nanoseconds from T0, by which the share `u` (0 to 1) of all arrivals has come.
    pub(crate) fn at_ns(&self, u: f64) -> u64 {
        let u = u.clamp(0.0, 1.0);
        let seconds = match self {
            Curve::Constant { length, .. } => u * length,
            Curve::Ramp { from, to, length } => {
                // Solve from·t + (to − from)·t²/(2·length) = area, in the form that stays exact when to ≈ from.
                let area = u * (from + to) / 2.0 * length;
                let root = (from * from + 2.0 * area * (to - from) / length).max(0.0);
                let sum = from + root.sqrt();
                if sum == 0.0 { 0.0 } else { 2.0 * area / sum }
            }
            Curve::Decay { lambda, length } => {
                if *lambda == 0.0 {
                    u * length
                } else {
                    // exp_m1 and ln_1p keep nanoseconds at the very start, where most buyers are.
                    let whole = -(-lambda * length).exp_m1();
                    -(-u * whole).ln_1p() / lambda
                }
            }
        };
        let length = match self {
            Curve::Constant { length, .. }
            | Curve::Ramp { length, .. }
            | Curve::Decay { length, .. } => *length,
        };
        (seconds.min(length) * 1e9) as u64
    }
}

/// The decay for which `share` of the arrivals falls within `within` of a curve cut at `length` (seconds).
fn decay(share: f64, within: f64, length: f64) -> f64 {
    if within >= length || share <= within / length {
        return 0.0;
    }
    let reached = |lambda: f64| (-lambda * within).exp_m1() / (-lambda * length).exp_m1();
    // Steeper than this and all arrive in the first thousandth of the window anyway.
    let (mut low, mut high) = (1e-9 / length, 1e4 / within);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if reached(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decay_puts_the_asked_share_into_the_first_window() {
        for (share, within, length) in [(0.5, 1.0, 10.0), (0.9, 1.0, 30.0), (0.2, 2.0, 11.0)] {
            let curve = Curve::Decay {
                lambda: decay(share, within, length),
                length,
            };
            let at = curve.at_ns(share) as f64 / 1e9;
            assert!(
                (at - within).abs() < 1e-3,
                "{share} {within} {length}: {at}"
            );
        }
    }

    #[test]
    fn an_even_share_is_an_even_spread() {
        assert_eq!(decay(0.1, 1.0, 10.0), 0.0);
    }

    #[test]
    fn a_constant_curve_is_exact_to_the_nanosecond() {
        let curve = Curve::Constant {
            rate: 1000.0,
            length: 2.0,
        };
        assert_eq!(curve.at_ns(0.5), 1_000_000_000);
        assert_eq!(curve.at_ns(0.0), 0);
    }

    #[test]
    fn a_ramp_reaches_a_quarter_of_its_arrivals_at_half_time() {
        let curve = Curve::Ramp {
            from: 0.0,
            to: 100.0,
            length: 10.0,
        };
        assert_eq!(curve.total(), 500.0);
        assert_eq!(curve.at_ns(0.25), 5_000_000_000);
    }
}

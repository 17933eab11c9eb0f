//! Computes the coefficients of a merged tensor: child = s0·a + s1·b.
//!
//! Shoemake, *Animating rotation with quaternion curves* (1985), over whole tensors as vectors;
//! thresholds from the original merge script by Digitous and CalderaAI (after dvschultz).

use serde::Serialize;

use crate::merge::options::Method;

/// Above this |cos θ| the arc is a line to float32's precision (or, for opposite vectors,
/// undefined), and lerp is used. From the original script; mergekit has the same.
pub const COS_THRESHOLD: f64 = 0.9995;

/// Below this norm a vector has no direction, and lerp is used. From the original script.
pub const NORM_THRESHOLD: f64 = 1e-10;

/// Sums over a whole pair of tensors, in float64 across pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// a·b.
    pub dot: f64,
    /// ‖a‖².
    pub a_squared: f64,
    /// ‖b‖².
    pub b_squared: f64,
}

impl Sums {
    /// Adds the sums of the next piece. Pieces must come in order: the result's bits depend on it.
    pub fn add(&mut self, piece: Sums) {
        self.dot += piece.dot;
        self.a_squared += piece.a_squared;
        self.b_squared += piece.b_squared;
    }

    /// Whether no sum is NaN or Inf. A NaN or Inf in either tensor makes its square sum one.
    pub fn is_finite(&self) -> bool {
        self.dot.is_finite() && self.a_squared.is_finite() && self.b_squared.is_finite()
    }

    /// cos θ = clamp(a·b / (‖a‖‖b‖), −1, 1), or `None` where a norm is below [`NORM_THRESHOLD`].
    pub fn cos_theta(&self) -> Option<f64> {
        let (a, b) = (self.a_squared.sqrt(), self.b_squared.sqrt());
        if a < NORM_THRESHOLD || b < NORM_THRESHOLD {
            return None;
        }
        Some((self.dot / (a * b)).clamp(-1.0, 1.0))
    }
}

/// How a tensor was interpolated: along the arc, or along a line and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// Along the arc.
    Slerp,
    /// `--method linear`.
    Linear,
    /// Lerp: cos θ > 0.9995.
    LerpParallel,
    /// Lerp: cos θ < −0.9995.
    LerpOpposite,
    /// Lerp: a norm below 1e-10.
    LerpZero,
}

impl Path {
    /// Whether the factors sum to 1, so that where both parents have one value the child has it, too.
    pub fn is_line(self) -> bool {
        match self {
            Path::Slerp => false,
            Path::Linear | Path::LerpParallel | Path::LerpOpposite | Path::LerpZero => true,
        }
    }
}

/// The two factors and the path that they follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficients {
    /// Factor of the primary's tensor.
    pub s0: f64,
    /// Factor of the secondary's tensor.
    pub s1: f64,
    /// Arc or line.
    pub path: Path,
}

/// The coefficients at `t` by `method`. Every method must give the primary at 0 and the secondary at 1:
/// the engine copies there.
pub fn coefficients(method: Method, t: f64, sums: &Sums) -> Coefficients {
    match method {
        Method::Slerp => slerp(t, sums),
        Method::Linear => line(t, Path::Linear),
    }
}

fn line(t: f64, path: Path) -> Coefficients {
    Coefficients { s0: 1.0 - t, s1: t, path }
}

/// s0 = sin((1−t)θ)/sin θ, s1 = sin(tθ)/sin θ, or 1−t and t where the arc is a line.
fn slerp(t: f64, sums: &Sums) -> Coefficients {
    let line = |path| line(t, path);
    let Some(cos_theta) = sums.cos_theta() else {
        return line(Path::LerpZero);
    };
    if cos_theta > COS_THRESHOLD {
        return line(Path::LerpParallel);
    }
    if cos_theta < -COS_THRESHOLD {
        return line(Path::LerpOpposite);
    }
    if cos_theta.is_nan() {
        return line(Path::LerpZero);
    }
    let theta = cos_theta.acos();
    let sin_theta = theta.sin();
    Coefficients {
        s0: ((1.0 - t) * theta).sin() / sin_theta,
        s1: (t * theta).sin() / sin_theta,
        path: Path::Slerp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(t: f64, dot: f64, a_squared: f64, b_squared: f64) -> Coefficients {
        coefficients(Method::Slerp, t, &Sums { dot, a_squared, b_squared })
    }

    #[test]
    fn orthogonal_unit_vectors_meet_at_the_square_root_of_a_half() {
        let middle = at(0.5, 0.0, 1.0, 1.0);
        assert!((middle.s0 - 0.5f64.sqrt()).abs() < 1e-15);
        assert!((middle.s1 - 0.5f64.sqrt()).abs() < 1e-15);
        assert_eq!(middle.path, Path::Slerp);
    }

    #[test]
    fn sixty_degrees_at_a_third_is_worked_by_hand() {
        // θ = 60°, t = 1/3: s0 = sin 40° / sin 60°, s1 = sin 20° / sin 60°.
        let third = at(1.0 / 3.0, 0.5, 1.0, 1.0);
        assert!((third.s0 - 0.742_227_198_968_559_2).abs() < 1e-14);
        assert!((third.s1 - 0.394_930_843_634_698_44).abs() < 1e-14);
    }

    #[test]
    fn the_ends_are_the_parents() {
        for (t, s0, s1) in [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0)] {
            let end = at(t, 0.3, 1.0, 2.0);
            assert!((end.s0 - s0).abs() < 1e-15 && (end.s1 - s1).abs() < 1e-15);
        }
    }

    #[test]
    fn parallel_opposite_and_zero_vectors_take_the_line() {
        assert_eq!(at(0.25, 1.0, 1.0, 1.0).path, Path::LerpParallel);
        assert_eq!(at(0.25, -1.0, 1.0, 1.0).path, Path::LerpOpposite);
        assert_eq!(at(0.25, 0.0, 0.0, 1.0).path, Path::LerpZero);
        let line = at(0.25, 1.0, 1.0, 1.0);
        assert_eq!((line.s0, line.s1), (0.75, 0.25));
    }

    #[test]
    fn just_inside_the_threshold_the_arc_is_taken() {
        assert_eq!(at(0.5, 0.9995, 1.0, 1.0).path, Path::Slerp);
        assert_eq!(at(0.5, 0.999_500_1, 1.0, 1.0).path, Path::LerpParallel);
    }

    #[test]
    fn rounding_beyond_one_is_clamped() {
        assert_eq!(Sums { dot: 1.000_001, a_squared: 1.0, b_squared: 1.0 }.cos_theta(), Some(1.0));
    }

    #[test]
    fn a_line_is_taken_for_all_where_it_was_asked_for() {
        let sums = Sums { dot: 0.0, a_squared: 1.0, b_squared: 1.0 };
        let linear = coefficients(Method::Linear, 0.25, &sums);
        assert_eq!(linear, Coefficients { s0: 0.75, s1: 0.25, path: Path::Linear });
    }

    #[test]
    fn the_angle_is_that_of_the_directions_whatever_the_lengths() {
        // 3 / (2 · 3) = 1/2; −3 / (2 · 3); 8 / (4 · 2).
        for (dot, a, b, cos) in
            [(3.0, 4.0, 9.0, 0.5), (-3.0, 4.0, 9.0, -0.5), (8.0, 16.0, 4.0, 1.0)]
        {
            let sums = Sums { dot, a_squared: a, b_squared: b };
            assert_eq!(sums.cos_theta(), Some(cos));
        }
        // 1e-20 is the square of the least norm that has a direction.
        for (a, b, has) in [
            (1e-20, 1.0, true),
            (1.0, 1e-20, true),
            (0.99e-20, 1.0, false),
            (1.0, 0.99e-20, false),
            (0.0, 1.0, false),
            (1.0, 0.0, false),
        ] {
            let sums = Sums { dot: 0.0, a_squared: a, b_squared: b };
            assert_eq!(sums.cos_theta(), has.then_some(0.0), "{a} {b}");
        }
    }

    #[test]
    fn almost_opposite_vectors_take_the_arc_and_nan_takes_the_line() {
        assert_eq!(at(0.5, -0.9995, 1.0, 1.0).path, Path::Slerp);
        assert_eq!(at(0.5, -0.999_500_1, 1.0, 1.0).path, Path::LerpOpposite);
        assert_eq!(at(0.5, f64::NAN, 1.0, 1.0).path, Path::LerpZero);
    }

    #[test]
    fn the_sums_of_pieces_add_up_and_one_nan_or_inf_makes_them_so() {
        let piece = |dot, a_squared, b_squared| Sums { dot, a_squared, b_squared };
        let mut sums = piece(1.0, 2.0, 3.0);
        sums.add(piece(-4.0, 5.0, 6.0));
        assert_eq!(sums, piece(-3.0, 7.0, 9.0));
        assert!(sums.is_finite());
        for bad in [f64::NAN, f64::INFINITY] {
            for sums in [piece(bad, 1.0, 1.0), piece(1.0, bad, 1.0), piece(1.0, 1.0, bad)] {
                assert!(!sums.is_finite(), "{sums:?}");
            }
        }
    }
}

//! The decode methods by name.

use std::fmt;

use super::Method;

/// Which decode method, without its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MethodKind {
    /// Read the whole cache.
    Dense,
    /// SparQ attention.
    Sparq,
    /// SparQ attention with a mass budget.
    SparqMass,
    /// FlexGen's top-k of the exact weights.
    ExactTopk,
    /// Top-k of the exact weights, renormalised: a bound.
    OracleTopk,
    /// LM-Infinite.
    Local,
    /// H2O.
    H2o,
    /// Quest.
    Quest,
    /// Double Sparsity.
    DoubleSparsity,
}

impl MethodKind {
    /// All of them, dense first.
    pub const ALL: [Self; 9] = [
        Self::Dense,
        Self::Sparq,
        Self::SparqMass,
        Self::ExactTopk,
        Self::OracleTopk,
        Self::Local,
        Self::H2o,
        Self::Quest,
        Self::DoubleSparsity,
    ];

    /// As it is written everywhere: `double-sparsity`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Sparq => "sparq",
            Self::SparqMass => "sparq-mass",
            Self::ExactTopk => "exact-topk",
            Self::OracleTopk => "oracle-topk",
            Self::Local => "local",
            Self::H2o => "h2o",
            Self::Quest => "quest",
            Self::DoubleSparsity => "double-sparsity",
        }
    }
}

impl fmt::Display for MethodKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Method {
    /// Which method it is.
    pub fn kind(&self) -> MethodKind {
        match self {
            Self::Dense => MethodKind::Dense,
            Self::Sparq(_) => MethodKind::Sparq,
            Self::SparqMass(_) => MethodKind::SparqMass,
            Self::ExactTopk(_) => MethodKind::ExactTopk,
            Self::OracleTopk(_) => MethodKind::OracleTopk,
            Self::Local(_) => MethodKind::Local,
            Self::H2o(_) => MethodKind::H2o,
            Self::Quest(_) => MethodKind::Quest,
            Self::DoubleSparsity(_) => MethodKind::DoubleSparsity,
        }
    }
}

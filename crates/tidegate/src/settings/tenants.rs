//! What each tenant may take.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use clap::Args;
use server::Quotas;

use super::Allowance;

/// What each tenant may take; each key is a tenant. Nothing is limited unless it is said.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Tenants")]
pub struct TenantSettings {
    /// Requests that each tenant may send in a time, such as 60/min; alice=600/min is for one tenant. May be repeated;
    /// more are refused with 429.
    #[arg(long, env = "TIDEGATE_TENANT_RATE_LIMIT", value_name = "[TENANT=]RATE", value_delimiter = ',')]
    pub tenant_rate_limit: Vec<OfTenant<Allowance>>,
    /// Tokens that each tenant may have read and written in a time, such as 100000/min; may be repeated, as above.
    #[arg(long, env = "TIDEGATE_TENANT_TOKEN_LIMIT", value_name = "[TENANT=]RATE", value_delimiter = ',')]
    pub tenant_token_limit: Vec<OfTenant<Allowance>>,
    /// Requests that each tenant may have unfinished; may be repeated, as above.
    #[arg(long, env = "TIDEGATE_TENANT_CONCURRENCY", value_name = "[TENANT=]N", value_delimiter = ',')]
    pub tenant_concurrency: Vec<OfTenant<NonZeroU32>>,
}

impl TenantSettings {
    /// The same, as the HTTP front takes it.
    pub fn quotas(&self) -> Quotas {
        let rate = |limit: &OfTenant<Allowance>| (limit.tenant.clone(), limit.limit.into());
        Quotas {
            requests: self.tenant_rate_limit.iter().map(rate).collect(),
            tokens: self.tenant_token_limit.iter().map(rate).collect(),
            at_once: self
                .tenant_concurrency
                .iter()
                .map(|limit| (limit.tenant.clone(), limit.limit))
                .collect(),
        }
    }
}

/// A limit for every tenant, or, written as `alice=…`, for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfTenant<T> {
    /// The name of the tenant's key; `None` is everyone who has no limit of their own.
    pub tenant: Option<String>,
    /// The limit.
    pub limit: T,
}

impl<T: fmt::Display> fmt::Display for OfTenant<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tenant.iter().try_for_each(|tenant| write!(f, "{tenant}="))?;
        self.limit.fmt(f)
    }
}

impl<T: FromStr<Err: fmt::Display>> FromStr for OfTenant<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tenant, limit) = match text.rsplit_once('=') {
            Some((tenant, limit)) => (Some(tenant.trim().to_owned()), limit),
            None => (None, text),
        };
        if tenant.as_deref() == Some("") {
            return Err(format!(
                "'{text}' names no tenant; write alice={}, or {} for every tenant",
                limit, limit
            ));
        }
        let limit = limit.trim().parse().map_err(|error: T::Err| error.to_string())?;
        Ok(Self { tenant, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_one_and_of_all() {
        let check = |text: &str, shown: &str| {
            let rate =
                text.parse::<OfTenant<Allowance>>().map_or_else(|error| error, |rate| rate.to_string());
            assert!(rate.contains(shown), "{text}: {rate}");
        };
        check("60/min", "60/min");
        check(" a=b = 5/s", "a=b=5/s");
        check("=5/s", "'=5/s' names no tenant; write alice=5/s, or 5/s for every tenant");
        check("alice=5", "'5' is not a rate");
        assert!("alice=0".parse::<OfTenant<NonZeroU32>>().unwrap_err().contains("non-zero"));
    }
}

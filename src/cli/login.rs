//! `foip login` and `foip logout`: the part at the terminal.

use super::{Failure, print};
use crate::config::{ProviderSettings, Settings};
use crate::core::config::Api;
use crate::provider::Options;
use crate::provider::login::{self, Device, Logout, Poll};
use crate::types::Span;

/// Logs in with the device flow (RFC 8628): shows a page and a code, waits for the answer, keeps the token.
pub(super) fn login(settings: &Settings) -> Result<(), Failure> {
    let options = rest_options(&settings.provider)?;
    let mut device = Device::begin(&options)?;
    // Codes that are approved in one session of a browser give logins of one session: taking one back ends them all.
    let mut text = String::from(
        "Open this page in a private window of its own (for each node a new one), log in to netcup's Server Control \
         Panel and allow the access:\n\n",
    );
    match device.page_complete() {
        Some(page) => text.push_str(&format!(
            "    {page}\n\nIf it asks for a code ({}): {}\n",
            device.page(),
            device.user_code()
        )),
        None => {
            text.push_str(&format!(
                "    {}\n\nand enter the code {}\n",
                device.page(),
                device.user_code()
            ));
        }
    }
    text.push_str(&format!("\nWaiting for it, at most {} ...\n", device.left()));
    print(&text);
    pause(device.interval());
    loop {
        match device.poll()? {
            Poll::Pending { wait } => pause(wait),
            Poll::Denied => {
                return Err(Failure::Failed(
                    "the access was denied on netcup's page; run foip login again".into(),
                ));
            }
            Poll::Expired => {
                return Err(Failure::Failed(
                    "the code expired before the access was allowed; run foip login again".into(),
                ));
            }
            Poll::Done { account } => {
                let who = account.map(|account| format!(" as {account}")).unwrap_or_default();
                let file = options.token_file.display();
                print(&format!(
                    "Logged in{who}. The token is in {file}; a running foip finds it by itself.\n"
                ));
                return Ok(());
            }
        }
    }
}

/// Removes the token here, and takes it back at netcup where that is asked for.
pub(super) fn logout(settings: &Settings, revoke: bool) -> Result<(), Failure> {
    let options = rest_options(&settings.provider)?;
    let file = options.token_file.display();
    if revoke && options.token_file.exists() {
        print(
            "Taking the token back at netcup. This may end the login of every other node, too: where foip status \
             says so, run foip login there.\n",
        );
    }
    print(&match login::logout(&options, revoke)? {
        Logout::Revoked => {
            format!("Logged out: netcup took the token back, and {file} is removed.\n")
        }
        Logout::Removed => format!(
            "Logged out: {file} is removed. netcup was not told: the token stays good for whoever has a copy, until it \
             was not used for 30 days. To end it, remove the access of \"scp\" in the applications of netcup's account \
             console: that ends the login of every node.\n"
        ),
        Logout::Nothing => format!("Nothing to do: there is no {file}.\n"),
    });
    Ok(())
}

fn rest_options(provider: &ProviderSettings) -> Result<Options, Failure> {
    match provider.api {
        Api::Rest => Ok(provider.options()),
        Api::Soap => Err(Failure::Failed(
            "api = \"soap\" has no login: it uses login_name and the webservice password (password_file)".into(),
        )),
    }
}

impl From<login::LoginError> for Failure {
    fn from(error: login::LoginError) -> Self {
        match error {
            login::LoginError::Open(error) => Self::Unusable(error.to_string()),
            login::LoginError::Provider(_) | login::LoginError::File { .. } => {
                Self::Failed(error.to_string())
            }
        }
    }
}

/// Nothing else happens in this process meanwhile.
fn pause(time: Span) {
    let end = crate::clock::now() + time;
    loop {
        match crate::clock::now().until(end) {
            Span::ZERO => return,
            // It may return early.
            left => std::thread::park_timeout(left.as_std()),
        }
    }
}

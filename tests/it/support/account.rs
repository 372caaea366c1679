//! An account and what its owner does with it, over HTTP.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use super::wait_for;

/// An account of a server, with a credential of it.
#[derive(Clone)]
pub(crate) struct Account {
    http: Client,
    api: String,
    gateway: String,
    pub(crate) user_name: String,
    pub(crate) email: String,
    pub(crate) password: String,
    /// Sent as `Authorization: Bearer`, unless empty.
    pub(crate) credential: String,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What is sent to deploy.
#[derive(Debug, Clone)]
pub(crate) struct Deploy(pub(crate) Value);

/// A function that was deployed.
#[derive(Debug, Clone)]
pub(crate) struct Deployed {
    pub(crate) id: String,
    /// The view the API gave of it.
    pub(crate) view: Value,
}

/// A deploy of one file.
pub(crate) fn deploy(name: &str, filename: &str, code: &str) -> Deploy {
    Deploy(json!({ "name": name, "filename": filename, "code": code }))
}

impl Deploy {
    /// The same with another field.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }
}

impl Account {
    pub(crate) async fn register(api: &str, gateway: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let user_name = format!("user-{}-{number}", std::process::id());
        let mut account = Self {
            http: Client::builder().no_proxy().build().unwrap(),
            api: api.to_owned(),
            gateway: gateway.to_owned(),
            email: format!("{user_name}@example.org"),
            password: format!("correct horse {user_name}"),
            user_name,
            credential: String::new(),
        };
        let answer = account
            .post(
                "/api/auth/register",
                &json!({
                    "fullName": "Ada Lovelace",
                    "userName": account.user_name,
                    "email": account.email,
                    "password": account.password,
                }),
            )
            .await
            .expect(201);
        answer.json()["token"].as_str().unwrap().clone_into(&mut account.credential);
        account
    }

    /// The same account showing another credential; none if it is empty.
    pub(crate) fn showing(&self, credential: &str) -> Self {
        Self { credential: credential.to_owned(), ..self.clone() }
    }

    /// The same account on a server that was started again.
    pub(crate) fn at(&self, api: &str, gateway: &str) -> Self {
        Self { api: api.to_owned(), gateway: gateway.to_owned(), ..self.clone() }
    }

    /// A new API key with these scopes.
    pub(crate) async fn key(&self, scopes: &[&str]) -> String {
        let body = json!({ "name": "test", "scopes": scopes });
        let answer = self.post("/api/apikeys", &body).await.expect(201);
        answer.json()["key"].as_str().unwrap().to_owned()
    }

    /// Where the API is.
    pub(crate) fn api_base(&self) -> &str {
        &self.api
    }

    /// Where the gateway is.
    pub(crate) fn gateway_base(&self) -> &str {
        &self.gateway
    }

    fn request(&self, method: Method, url: String) -> RequestBuilder {
        let request = self.http.request(method, url);
        if self.credential.is_empty() { request } else { request.bearer_auth(&self.credential) }
    }

    /// A request to the API.
    pub(crate) fn api(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, format!("{}{path}", self.api))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.api(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        send(self.api(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.api(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        send(self.api(Method::PUT, path).json(body)).await
    }

    /// Deploys and waits for the end, whatever it is.
    pub(crate) async fn try_deploy(&self, deploy: &Deploy) -> Answer {
        self.post("/api/function/deploy?wait=true", &deploy.0).await
    }

    /// Deploys a function that must become active.
    pub(crate) async fn deploy(&self, deploy: &Deploy) -> Deployed {
        let view = self.try_deploy(deploy).await.expect(200).json();
        assert_eq!(view["status"], "active", "{view:#}");
        Deployed { id: view["id"].as_str().unwrap().to_owned(), view }
    }

    /// Deploys a function that must fail; gives its `deployError`.
    pub(crate) async fn deploy_failing(&self, deploy: &Deploy) -> Value {
        let view = self.try_deploy(deploy).await.expect(200).json();
        assert_eq!(view["status"], "failed", "{view:#}");
        view["deployError"].clone()
    }

    /// The function as the API shows it.
    pub(crate) async fn view(&self, id: &str) -> Value {
        self.get(&format!("/api/function/{id}")).await.expect(200).json()
    }

    /// A call of one of its functions; `path` begins with the name.
    pub(crate) fn run(&self, method: Method, path: &str) -> RequestBuilder {
        self.run_of(&self.user_name, method, path)
    }

    /// A call of a function of this user.
    pub(crate) fn run_of(&self, user_name: &str, method: Method, path: &str) -> RequestBuilder {
        self.request(method, format!("{}/run/{user_name}/{path}", self.gateway))
    }

    /// A GET of one of its functions.
    pub(crate) async fn call(&self, path: &str) -> Answer {
        send(self.run(Method::GET, path)).await
    }

    /// A POST of JSON to one of its functions.
    pub(crate) async fn call_with(&self, path: &str, body: &Value) -> Answer {
        send(self.run(Method::POST, path).json(body)).await
    }

    /// The log rows of one call; waits for the first.
    pub(crate) async fn logs_of(&self, function: &str, execution: &str) -> Vec<Value> {
        let path = &format!("/api/logs/{function}?executionId={execution}");
        wait_for("the log row", || async move { rows(self.get(path).await, "logs") }).await
    }

    /// The usage rows of one call; waits for the first.
    pub(crate) async fn usage_of(&self, function: &str, execution: &str) -> Vec<Value> {
        let path = &format!("/api/usage?functionId={function}&groupBy=none&limit=1000");
        wait_for("the usage row", || async move {
            let mut found = rows(self.get(path).await, "usage")?;
            found.retain(|row| row["executionId"] == execution);
            (!found.is_empty()).then_some(found)
        })
        .await
    }
}

fn rows(answer: Answer, field: &str) -> Option<Vec<Value>> {
    let rows = answer.expect(200).json()[field].as_array().unwrap().clone();
    (!rows.is_empty()).then_some(rows)
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

/// Sends a request and reads the whole answer, if there is one.
pub(crate) async fn try_send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?,
    })
}

impl Answer {
    /// The same answer if it has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// The body.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body, parsed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// `error.code` of the body; empty if it has none.
    pub(crate) fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// A header as text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Which call this answers.
    #[track_caller]
    pub(crate) fn execution(&self) -> &str {
        let id = self.header("x-cloudserve-execution-id");
        assert!(!id.is_empty(), "no execution id: {self:?}");
        id
    }
}

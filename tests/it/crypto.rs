//! `node:crypto`, where the engine's is not Node's and ours is.

use serde_json::json;

use crate::support::{deploy, server};

#[tokio::test]
async fn ciphers_are_known_by_the_names_that_openssl_knows() {
    let code = "
        import crypto from 'node:crypto';
        const make = (way, name, key, iv) => crypto[way](name, Buffer.alloc(key, 1), Buffer.alloc(iv, 2));
        const same = (name, other, ...sizes) => {
            const [one, two] = [name, other].map((name) => make('createCipheriv', name, ...sizes));
            return one.update('sixteen bytes...', 'utf8', 'hex') === two.update('sixteen bytes...', 'utf8', 'hex');
        };
        export default () => {
            const cipher = make('createCipheriv', 'AES-256-CBC', 32, 16);
            const sealed = cipher.update('hello', 'utf8', 'hex') + cipher.final('hex');
            const decipher = make('createDecipheriv', 'AES-256-CBC', 32, 16);
            const opened = decipher.update(sealed, 'hex', 'utf8') + decipher.final('utf8');
            const others = [
                same('id-aes256-GCM', 'aes-256-gcm', 32, 12),
                same('DES3', 'des-ede3-cbc', 24, 8),
                same('id-aes256-wrap', 'aes256-wrap', 32, 8),
            ];
            const back = ['aes128', 'aes-128-cbc'].map((name) => {
                const one = make('createCipheriv', name, 16, 16);
                const bytes = Buffer.concat([one.update('hello'), one.final()]);
                const other = make('createDecipheriv', name, 16, 16);
                return other.update(bytes, null, 'utf8') + other.final('utf8');
            });
            const { name } = crypto.getCipherInfo('AES-256-CBC');
            return { sealed, opened, others, back, name };
        };
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("ciphers", "c.mjs", code)).await;
    assert_eq!(
        owner.call("ciphers").await.expect(200).json(),
        json!({
            "sealed": "aaf7a0b1c5d4d4b8c8abeaa891ec2755",
            "opened": "hello",
            "others": [true, true, true],
            "back": ["hello", "hello"],
            "name": "aes-256-cbc",
        }),
    );
}

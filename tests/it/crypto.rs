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

/// The first is the cipher of Node's own examples.
#[tokio::test]
async fn aes_with_keys_of_192_bits_is_as_in_node() {
    let code = "
        import crypto from 'node:crypto';
        const make = (way, name, key, iv, options) =>
            crypto[way](name, Buffer.alloc(key, 1), Buffer.alloc(iv, 2), options);
        const cbc = (way, name = 'aes-192-cbc') => make(way, name, 24, 16);
        const gcm = (way, options) =>
            make(way, 'id-aes192-GCM', 24, 12, options).setAAD(Buffer.from('aad'));
        const thrown = (call) => {
            try { return call(); } catch ({ message }) { return message; }
        };
        const inPieces = (cipher, bytes, size) => {
            const pieces = [];
            for (let at = 0; at < bytes.length; at += size) {
                pieces.push(cipher.update(bytes.subarray(at, at + size)));
            }
            return Buffer.concat([...pieces, cipher.final()]);
        };
        const hex = (cipher, text) => cipher.update(text, 'utf8', 'hex') + cipher.final('hex');
        export default () => {
            const long = crypto.randomBytes(100_000);
            const whole = cbc('createCipheriv').setAutoPadding(false);
            const cipher = gcm('createCipheriv');
            const open = (tag, options) => thrown(() => {
                const decipher = gcm('createDecipheriv', options).setAuthTag(tag);
                return decipher.update('475985cb9f', 'hex', 'utf8') + decipher.final('utf8');
            });
            const sealed = hex(cipher, 'hello');
            const tag = cipher.getAuthTag();
            const short = gcm('createCipheriv', { authTagLength: 8 });
            hex(short, 'hello');
            const ciphers = crypto.getCiphers();
            return {
                cbc: hex(cbc('createCipheriv', 'aes192'), 'hello'),
                whole: hex(whole, 'sixteen bytes...'.repeat(2)),
                long: [[1_000, 77], [15, 4_096]].map(([there, back]) => {
                    const bytes = inPieces(cbc('createCipheriv'), long, there);
                    return inPieces(cbc('createDecipheriv'), bytes, back).equals(long);
                }),
                bad: [32, 20].map((n) =>
                    thrown(() => inPieces(cbc('createDecipheriv'), Buffer.alloc(n), n)).split('::').at(-1)),
                gcm: [sealed, tag.toString('hex')],
                opened: [
                    open(tag), open(Buffer.alloc(16)), open(tag.subarray(0, 8)),
                    open(short.getAuthTag(), { authTagLength: 8 }),
                ],
                misfits: [
                    () => make('createCipheriv', 'aes-192-cbc', 16, 16),
                    () => make('createDecipheriv', 'aes-192-gcm', 32, 12),
                    () => make('createCipheriv', 'aes-192-cbc', 24, 12),
                    () => make('createCipheriv', 'aes-192-gcm', 24, 12, { authTagLength: 5 }),
                ].map(thrown),
                known: ['aes-192-cbc', 'aes-192-gcm', 'aes192'].map((name) => ciphers.includes(name)),
                sorted: ciphers.every((name, at) => at === 0 || ciphers[at - 1] < name),
            };
        };
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("aes", "a.mjs", code)).await;
    let refused = "Unsupported state or unable to authenticate data";
    assert_eq!(
        owner.call("aes").await.expect(200).json(),
        json!({
            "cbc": "503046ce77d52bce102470543455e5b4",
            "whole": "696d74e810c6779fc5d732f6dd3bfd0a1f2d981494b505e8f347828abd777a12",
            "long": [true, true],
            "bad": ["bad decrypt", "wrong final block length"],
            "gcm": ["475985cb9f", "9c795e33a6913a67e50253d0e63861b7"],
            "opened": ["hello", refused, "Invalid authentication tag length: 8", "hello"],
            "misfits": [
                "Invalid key length",
                "Invalid key length",
                "Invalid initialization vector",
                "Invalid authentication tag length: 5",
            ],
            "known": [true, true, true],
            "sorted": true,
        }),
    );
}

/// The vector of RFC 9106.
#[tokio::test]
async fn web_crypto_has_argon2() {
    let code = "
        const bytes = (n, value) => new Uint8Array(n).fill(value);
        export default async () => {
            const key = await crypto.subtle.importKey('raw-secret', bytes(32, 1), 'Argon2id', false, ['deriveBits']);
            const algorithm = {
                name: 'Argon2id', memory: 32, passes: 3, parallelism: 4, nonce: bytes(16, 2),
                secretValue: bytes(8, 3), associatedData: bytes(12, 4),
            };
            return Buffer.from(await crypto.subtle.deriveBits(algorithm, key, 256)).toString('hex');
        };
    ";
    let owner = server().await.register().await;
    owner.deploy(&deploy("argon2", "a.mjs", code)).await;
    assert_eq!(
        owner.call("argon2").await.expect(200).text(),
        "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659",
    );
}

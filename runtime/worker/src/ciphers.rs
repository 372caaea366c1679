//! AES with keys of 192 bits in CBC and GCM, which the engine's `node:crypto` lacks. Its operations on
//! ciphers are exchanged for some that know these two besides, made of the crates that it makes others of.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use aead_gcm_stream::AesGcm;
use aes::Aes192;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use deno_core::convert::Uint8Array;
use deno_core::{OpDecl, OpState, Resource, op2};
use deno_node_crypto::cipher::{
    CipherContext, CipherContextError, CipherError, DecipherContext, DecipherContextError,
    DecipherError,
};
use subtle::ConstantTimeEq;

const KEY_BYTES: usize = 24;
const BLOCK_BYTES: usize = 16;

/// Each is as the engine's of its name: it takes and gives the same.
pub(crate) fn exchanged(op: OpDecl) -> OpDecl {
    let ours = match op.name {
        "op_node_create_cipheriv" => op_create_cipheriv(),
        "op_node_cipheriv_set_aad" => op_cipheriv_set_aad(),
        "op_node_cipheriv_encrypt" => op_cipheriv_encrypt(),
        "op_node_cipheriv_final" => op_cipheriv_final(),
        "op_node_cipheriv_take" => op_cipheriv_take(),
        "op_node_create_decipheriv" => op_create_decipheriv(),
        "op_node_decipheriv_auth_tag" => op_decipheriv_auth_tag(),
        "op_node_decipheriv_set_aad" => op_decipheriv_set_aad(),
        "op_node_decipheriv_decrypt" => op_decipheriv_decrypt(),
        "op_node_decipheriv_final" => op_decipheriv_final(),
        _ => return op,
    };
    op.with_implementation_from(&ours)
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    Cbc,
    /// With the length of a tag, if it was said.
    Gcm(Option<usize>),
}

/// What does not fit a mode.
enum Misfit {
    Key,
    Iv,
    Tag(usize),
}

impl From<Misfit> for CipherError {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Key => Self::InvalidKeyLength,
            Misfit::Iv => Self::InvalidInitializationVector,
            Misfit::Tag(bytes) => Self::InvalidAuthTag(bytes),
        }
    }
}

impl From<Misfit> for DecipherError {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Key => Self::InvalidKeyLength,
            Misfit::Iv => Self::InvalidInitializationVector,
            Misfit::Tag(bytes) => Self::InvalidAuthTag(bytes),
        }
    }
}

impl Mode {
    /// The mode of this name; none if the cipher is not one of ours.
    fn of(
        algorithm: &str,
        key: &[u8],
        iv: &[u8],
        tag_bytes: Option<usize>,
    ) -> Result<Option<Self>, Misfit> {
        let (mode, iv_fits) = match algorithm {
            "aes-192-cbc" => (Self::Cbc, iv.len() == BLOCK_BYTES),
            "aes-192-gcm" => (Self::Gcm(tag_bytes), !iv.is_empty()),
            _ => return Ok(None),
        };
        match mode {
            _ if key.len() != KEY_BYTES => Err(Misfit::Key),
            _ if !iv_fits => Err(Misfit::Iv),
            Self::Gcm(Some(bytes)) if !is_tag(bytes) => Err(Misfit::Tag(bytes)),
            mode => Ok(Some(mode)),
        }
    }
}

/// Whether a tag of GCM may be so long.
fn is_tag(bytes: usize) -> bool {
    matches!(bytes, 4 | 8 | 12..=16)
}

/// `authTagLength`, of which -1 says nothing.
fn said(auth_tag_length: i32) -> Option<usize> {
    (auth_tag_length != -1).then(|| usize::try_from(auth_tag_length).unwrap_or(usize::MAX))
}

/// A cipher in one of the modes. `C` is CBC in its direction; GCM is the same in both.
enum InMode<C> {
    Cbc(Box<C>),
    Gcm(Box<AesGcm<Aes192>>, Option<usize>),
}

type Cipher = InMode<cbc::Encryptor<Aes192>>;
type Decipher = InMode<cbc::Decryptor<Aes192>>;

impl<C: KeyIvInit> InMode<C> {
    /// Key and initialization vector fit the mode.
    fn new(mode: Mode, key: &[u8], iv: &[u8]) -> Self {
        match mode {
            Mode::Cbc => Self::Cbc(Box::new(C::new(key.into(), iv.into()))),
            Mode::Gcm(tag_bytes) => Self::Gcm(Box::new(AesGcm::new(key.into(), iv)), tag_bytes),
        }
    }
}

impl Cipher {
    /// Whole blocks, in CBC. There is as much output as input.
    fn encrypt(&mut self, input: &[u8], output: &mut [u8]) {
        match self {
            Self::Cbc(cbc) => {
                let outputs = output.chunks_exact_mut(BLOCK_BYTES);
                for (input, output) in input.chunks_exact(BLOCK_BYTES).zip(outputs) {
                    cbc.encrypt_block_b2b_mut(input.into(), output.into());
                }
            }
            Self::Gcm(gcm, _) => {
                let output = &mut output[..input.len()];
                output.copy_from_slice(input);
                gcm.encrypt(output);
            }
        }
    }

    /// The last block; gives the tag, where there is one.
    fn finish(
        mut self,
        pads: bool,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<Option<Vec<u8>>, CipherError> {
        match self {
            Self::Gcm(..) => Ok(self.tag()),
            Self::Cbc(cbc) if pads => (*cbc)
                .encrypt_padded_b2b_mut::<Pkcs7>(input, output)
                .map(|_| None)
                .map_err(|_| CipherError::CannotPadInputData),
            Self::Cbc(_) if input.len() == BLOCK_BYTES => {
                self.encrypt(input, output);
                Ok(None)
            }
            Self::Cbc(_) => Err(CipherError::CannotPadInputData),
        }
    }

    fn tag(self) -> Option<Vec<u8>> {
        let Self::Gcm(gcm, tag_bytes) = self else { return None };
        let mut tag = gcm.finish().to_vec();
        tag.truncate(tag_bytes.unwrap_or(BLOCK_BYTES));
        Some(tag)
    }
}

impl Decipher {
    fn takes_tag(&self, bytes: usize) -> Result<(), DecipherError> {
        let fits = match self {
            Self::Cbc(_) => true,
            Self::Gcm(_, Some(tag_bytes)) => *tag_bytes == bytes,
            Self::Gcm(_, None) => is_tag(bytes),
        };
        if fits { Ok(()) } else { Err(DecipherError::InvalidAuthTag(bytes)) }
    }

    /// See [`Cipher::encrypt`].
    fn decrypt(&mut self, input: &[u8], output: &mut [u8]) {
        match self {
            Self::Cbc(cbc) => {
                let outputs = output.chunks_exact_mut(BLOCK_BYTES);
                for (input, output) in input.chunks_exact(BLOCK_BYTES).zip(outputs) {
                    cbc.decrypt_block_b2b_mut(input.into(), output.into());
                }
            }
            Self::Gcm(gcm, _) => {
                let output = &mut output[..input.len()];
                output.copy_from_slice(input);
                gcm.decrypt(output);
            }
        }
    }

    /// The last block, padding included, or the tag.
    fn finish(
        mut self,
        pads: bool,
        input: &[u8],
        output: &mut [u8],
        tag: &[u8],
    ) -> Result<(), DecipherError> {
        match self {
            Self::Gcm(gcm, tag_bytes) => {
                let made = gcm.finish();
                if made[..tag_bytes.unwrap_or(BLOCK_BYTES)].ct_eq(tag).into() {
                    Ok(())
                } else {
                    Err(DecipherError::DataAuthenticationFailed)
                }
            }
            Self::Cbc(_) if input.is_empty() => Ok(()),
            Self::Cbc(_) if input.len() != BLOCK_BYTES => {
                Err(DecipherError::InvalidFinalBlockLength)
            }
            Self::Cbc(cbc) if pads => (*cbc)
                .decrypt_padded_b2b_mut::<Pkcs7>(input, output)
                .map(|_| ())
                .map_err(|_| DecipherError::CannotUnpadInputData),
            Self::Cbc(_) => {
                self.decrypt(input, output);
                Ok(())
            }
        }
    }
}

struct Held<C>(RefCell<InMode<C>>);

type Encryption = Held<cbc::Encryptor<Aes192>>;
type Decryption = Held<cbc::Decryptor<Aes192>>;

impl<C: 'static> Resource for Held<C> {
    fn name(&self) -> Cow<'_, str> {
        "aes192".into()
    }
}

impl<C> Held<C> {
    fn set_aad(&self, aad: &[u8]) {
        if let InMode::Gcm(gcm, _) = &mut *self.0.borrow_mut() {
            gcm.set_aad(aad);
        }
    }
}

#[op2(fast)]
#[smi]
fn op_create_cipheriv(
    state: &mut OpState,
    #[string] algorithm: &str,
    #[buffer] key: &[u8],
    #[buffer] iv: &[u8],
    #[smi] auth_tag_length: i32,
) -> Result<u32, CipherContextError> {
    let tag_bytes = said(auth_tag_length);
    let mode = Mode::of(algorithm, key, iv, tag_bytes).map_err(CipherError::from)?;
    Ok(match mode {
        Some(mode) => state.resource_table.add(Held(RefCell::new(Cipher::new(mode, key, iv)))),
        None => state.resource_table.add(CipherContext::new(algorithm, key, iv, tag_bytes)?),
    })
}

#[op2(fast)]
fn op_cipheriv_set_aad(state: &mut OpState, #[smi] rid: u32, #[buffer] aad: &[u8]) -> bool {
    if let Ok(ours) = state.resource_table.get::<Encryption>(rid) {
        ours.set_aad(aad);
        return true;
    }
    let Ok(context) = state.resource_table.get::<CipherContext>(rid) else { return false };
    context.set_aad(aad);
    true
}

#[op2(fast)]
fn op_cipheriv_encrypt(
    state: &mut OpState,
    #[smi] rid: u32,
    #[buffer] input: &[u8],
    #[buffer] output: &mut [u8],
) -> bool {
    if output.len() < input.len() {
        return false;
    }
    if let Ok(ours) = state.resource_table.get::<Encryption>(rid) {
        ours.0.borrow_mut().encrypt(input, output);
        return true;
    }
    let Ok(context) = state.resource_table.get::<CipherContext>(rid) else { return false };
    context.encrypt(input, output);
    true
}

#[op2]
fn op_cipheriv_final(
    state: &mut OpState,
    #[smi] rid: u32,
    auto_pad: bool,
    #[buffer] input: &[u8],
    #[anybuffer] output: &mut [u8],
) -> Result<Option<Uint8Array>, CipherContextError> {
    let tag = if let Ok(ours) = state.resource_table.take::<Encryption>(rid) {
        let ours = Rc::try_unwrap(ours).map_err(|_| CipherContextError::ContextInUse)?;
        ours.0.into_inner().finish(auto_pad, input, output)?
    } else {
        let context = state.resource_table.take::<CipherContext>(rid)?;
        let context = Rc::try_unwrap(context).map_err(|_| CipherContextError::ContextInUse)?;
        context.r#final(auto_pad, input, output)?
    };
    Ok(tag.map(Into::into))
}

#[op2]
fn op_cipheriv_take(
    state: &mut OpState,
    #[smi] rid: u32,
) -> Result<Option<Uint8Array>, CipherContextError> {
    let tag = if let Ok(ours) = state.resource_table.take::<Encryption>(rid) {
        let ours = Rc::try_unwrap(ours).map_err(|_| CipherContextError::ContextInUse)?;
        ours.0.into_inner().tag()
    } else {
        let context = state.resource_table.take::<CipherContext>(rid)?;
        let context = Rc::try_unwrap(context).map_err(|_| CipherContextError::ContextInUse)?;
        context.take_tag()
    };
    Ok(tag.map(Into::into))
}

#[op2(fast)]
#[smi]
fn op_create_decipheriv(
    state: &mut OpState,
    #[string] algorithm: &str,
    #[buffer] key: &[u8],
    #[buffer] iv: &[u8],
    #[smi] auth_tag_length: i32,
) -> Result<u32, DecipherContextError> {
    let tag_bytes = said(auth_tag_length);
    let mode = Mode::of(algorithm, key, iv, tag_bytes).map_err(DecipherError::from)?;
    Ok(match mode {
        Some(mode) => state.resource_table.add(Held(RefCell::new(Decipher::new(mode, key, iv)))),
        None => state.resource_table.add(DecipherContext::new(algorithm, key, iv, tag_bytes)?),
    })
}

#[op2(fast)]
fn op_decipheriv_auth_tag(
    state: &mut OpState,
    #[smi] rid: u32,
    #[smi] length: u32,
) -> Result<(), DecipherContextError> {
    if let Ok(ours) = state.resource_table.get::<Decryption>(rid) {
        return Ok(ours.0.borrow().takes_tag(length as usize)?);
    }
    state.resource_table.get::<DecipherContext>(rid)?.validate_auth_tag(length as usize)
}

#[op2(fast)]
fn op_decipheriv_set_aad(state: &mut OpState, #[smi] rid: u32, #[buffer] aad: &[u8]) -> bool {
    if let Ok(ours) = state.resource_table.get::<Decryption>(rid) {
        ours.set_aad(aad);
        return true;
    }
    let Ok(context) = state.resource_table.get::<DecipherContext>(rid) else { return false };
    context.set_aad(aad);
    true
}

#[op2(fast)]
fn op_decipheriv_decrypt(
    state: &mut OpState,
    #[smi] rid: u32,
    #[buffer] input: &[u8],
    #[buffer] output: &mut [u8],
) -> bool {
    if output.len() < input.len() {
        return false;
    }
    if let Ok(ours) = state.resource_table.get::<Decryption>(rid) {
        ours.0.borrow_mut().decrypt(input, output);
        return true;
    }
    let Ok(context) = state.resource_table.get::<DecipherContext>(rid) else { return false };
    context.decrypt(input, output);
    true
}

#[op2]
fn op_decipheriv_final(
    state: &mut OpState,
    #[smi] rid: u32,
    auto_pad: bool,
    #[buffer] input: &[u8],
    #[anybuffer] output: &mut [u8],
    #[buffer] auth_tag: &[u8],
) -> Result<(), DecipherContextError> {
    if let Ok(ours) = state.resource_table.take::<Decryption>(rid) {
        let ours = Rc::try_unwrap(ours).map_err(|_| DecipherContextError::ContextInUse)?;
        return Ok(ours.0.into_inner().finish(auto_pad, input, output, auth_tag)?);
    }
    let context = state.resource_table.take::<DecipherContext>(rid)?;
    let context = Rc::try_unwrap(context).map_err(|_| DecipherContextError::ContextInUse)?;
    context.r#final(auto_pad, input, output, auth_tag)
}

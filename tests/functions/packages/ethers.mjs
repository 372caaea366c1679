/*---
{ "package": "ethers", "version": "6.17.0", "tree": "more",
  "exercises": "a wallet's address and signature, an ABI, units",
  "expect": { "json": { "address": "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A", "signer": "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A", "call": "0xa9059cbb" } } }
---*/
import { ethers } from "ethers";

export default async () => {
  const wallet = new ethers.Wallet(`0x${"11".repeat(32)}`);
  const signature = await wallet.signMessage("hi");
  const abi = new ethers.Interface(["function transfer(address to, uint256 amount)"]);
  const call = abi.encodeFunctionData("transfer", [wallet.address, ethers.parseEther("1.5")]);
  return { address: wallet.address, signer: ethers.verifyMessage("hi", signature), call: call.slice(0, 10) };
};

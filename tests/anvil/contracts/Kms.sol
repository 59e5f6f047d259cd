// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// The part of a dstack KMS contract that is asked for. It has no constructor, so its code can be put anywhere.
contract Kms {
    struct KmsInfo {
        bytes k256Pubkey;
        bytes caPubkey;
        bytes quote;
        bytes eventlog;
    }

    KmsInfo public kmsInfo;
    mapping(address => bool) public registeredApps;
    mapping(bytes32 => bool) public allowedOsImages;

    function setKmsInfo(KmsInfo calldata info) external {
        kmsInfo = info;
    }

    function addOsImage(bytes32 image) external {
        allowedOsImages[image] = true;
    }

    function registerApp(address app) external {
        registeredApps[app] = true;
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// The part of a dstack app contract that is asked for, with its owner check, its events and its idempotence.
contract App {
    event ComposeHashAdded(bytes32 composeHash);
    event DeviceAdded(bytes32 deviceId);

    error NotTheOwner(address caller);
    error Frozen();

    address public owner;
    bool public allowAnyDevice;
    mapping(bytes32 => bool) public allowedComposeHashes;
    mapping(bytes32 => bool) public allowedDeviceIds;
    bool private frozen;

    constructor(address initialOwner) {
        owner = initialOwner;
    }

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotTheOwner(msg.sender);
        if (frozen) revert Frozen();
        _;
    }

    function addComposeHash(bytes32 composeHash) external onlyOwner {
        allowedComposeHashes[composeHash] = true;
        emit ComposeHashAdded(composeHash);
    }

    function addDevice(bytes32 deviceId) external onlyOwner {
        allowedDeviceIds[deviceId] = true;
        emit DeviceAdded(deviceId);
    }

    /// What follows is for tests alone: anybody may do it, so that the owner's nonce is left alone.
    function setAllowAnyDevice(bool allow) external {
        allowAnyDevice = allow;
    }

    function freeze() external {
        frozen = true;
    }

    function approveBehindTheBack(bytes32 composeHash) external {
        allowedComposeHashes[composeHash] = true;
        emit ComposeHashAdded(composeHash);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// An owner that is a contract, as a Safe is: its keeper has it call others.
contract Safe {
    address private immutable keeper;

    constructor(address initialKeeper) {
        keeper = initialKeeper;
    }

    function execute(address to, uint256 value, bytes calldata data) external {
        require(msg.sender == keeper, "not the keeper");
        (bool succeeded, ) = to.call{value: value}(data);
        require(succeeded, "the call failed");
    }
}

/// Answers every call with the same bytes, fit or not.
contract Parrot {
    bytes private words;

    constructor(bytes memory initialWords) {
        words = initialWords;
    }

    fallback(bytes calldata) external returns (bytes memory) {
        return words;
    }
}

/// An app that takes approvals, says nothing of them and forgets them.
contract ForgetfulApp {
    address public owner;
    bool public allowAnyDevice;

    constructor(address initialOwner) {
        owner = initialOwner;
    }

    function allowedComposeHashes(bytes32) external pure returns (bool) {
        return false;
    }

    function addComposeHash(bytes32) external {}
}

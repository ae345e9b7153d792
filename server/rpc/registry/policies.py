"""Rules over the wire: what namespaces may hold, and what their aliases ask for."""

# ruff: noqa: N802 - methods are named as the service names them.
from __future__ import annotations

from typing import TYPE_CHECKING

from switchyard.proto.registry.v1 import registry_pb2 as pb
from switchyard.registry.catalog.alias_policy import AliasPolicy
from switchyard.registry.catalog.namespace_policy import NamespacePolicy
from switchyard.registry.catalog.namespaces import NamespaceRecord
from switchyard.registry.refs import AdapterName
from switchyard.server.calls.catalog import MAX_PAGE, page_limit
from switchyard.server.rpc.registry import messages
from switchyard.server.rpc.registry.calls import RegistryCalls, actor_of
from switchyard.server.rpc.registry.fields import FieldChecks

if TYPE_CHECKING:
    from switchyard.server.rpc.registry.calls import Context


class PolicyCalls(RegistryCalls):
    """The calls that read and change the rules."""

    async def GetAliasPolicy(self, request: pb.GetAliasPolicyRequest, context: Context) -> pb.GetAliasPolicyResponse:
        """Shows the policy that holds for an alias."""
        del context
        policy = await self._run(
            lambda: self._registry.policies.get(AdapterName.parse(request.adapter), request.alias)
        )
        return pb.GetAliasPolicyResponse(policy=_alias_policy_message(policy))

    async def SetAliasPolicy(self, request: pb.SetAliasPolicyRequest, context: Context) -> pb.SetAliasPolicyResponse:
        """Gives an alias a policy."""
        wanted = AliasPolicy(
            protected=request.policy.protected,
            required_statements=tuple(request.policy.required_statements),
            distinct_promoter=request.policy.distinct_promoter,
            signers=tuple(request.policy.signers),
            min_approvals=request.policy.min_approvals,
        )
        policy = await self._run(
            lambda: self._registry.policies.set(
                AdapterName.parse(request.adapter), request.alias, wanted, actor=actor_of(context)
            )
        )
        return pb.SetAliasPolicyResponse(policy=_alias_policy_message(policy))

    async def GetNamespace(self, request: pb.GetNamespaceRequest, context: Context) -> pb.GetNamespaceResponse:
        """Shows one namespace."""
        del context
        record = await self._run(lambda: self._registry.namespaces.get(request.namespace))
        return pb.GetNamespaceResponse(namespace=_namespace_message(record))

    async def ListNamespaces(self, request: pb.ListNamespacesRequest, context: Context) -> pb.ListNamespacesResponse:
        """Lists namespaces, one page."""
        del context
        namespaces, token = await self._page(
            lambda limit: self._registry.namespaces.page(limit, request.page_token),
            _namespace_message,
            page_limit(request.page_size, MAX_PAGE),
        )
        return pb.ListNamespacesResponse(namespaces=namespaces, next_page_token=token)

    async def UpdateNamespace(
        self, request: pb.UpdateNamespaceRequest, context: Context
    ) -> pb.UpdateNamespaceResponse:
        """Changes what a namespace may hold, or its rules."""
        changes = [request.HasField("quota_bytes"), request.clear_quota, request.HasField("policy")]
        checks = FieldChecks()
        message = f"{sum(changes)} changes; make exactly one: quota_bytes, clear_quota or policy"
        checks.require("request", sum(changes) == 1, message)
        checks.refuse_faults()
        record = await self._run(lambda: self._changed(request, actor_of(context)))
        return pb.UpdateNamespaceResponse(namespace=_namespace_message(record))

    def _changed(self, request: pb.UpdateNamespaceRequest, actor: str) -> NamespaceRecord:
        namespaces = self._registry.namespaces
        if request.HasField("policy"):
            return namespaces.set_policy(request.namespace, _namespace_policy_of(request.policy), actor=actor)
        quota_bytes = request.quota_bytes if request.HasField("quota_bytes") else None
        return namespaces.set_quota(request.namespace, quota_bytes, actor=actor)


def _alias_policy_message(policy: AliasPolicy) -> pb.AliasPolicy:
    return pb.AliasPolicy(
        protected=policy.protected,
        required_statements=policy.required_statements,
        distinct_promoter=policy.distinct_promoter,
        signers=policy.signers,
        min_approvals=policy.min_approvals,
    )


def _namespace_policy_of(message: pb.NamespacePolicy) -> NamespacePolicy:
    return NamespacePolicy(
        keep_last=message.keep_last,
        keep_days=message.keep_days,
        protected_aliases=tuple(message.protected_aliases),
        required_statements=tuple(message.required_statements),
        distinct_promoter=message.distinct_promoter,
        signers=tuple(message.signers),
        min_approvals=message.min_approvals,
        trusted_keys=tuple(message.trusted_keys),
        signed_publish=message.signed_publish,
    )


def _namespace_message(record: NamespaceRecord) -> pb.Namespace:
    policy = record.policy
    return pb.Namespace(
        name=record.name,
        create_time=messages.timestamp(record.created_at_s),
        quota_bytes=record.quota_bytes,
        used_bytes=record.used_bytes,
        policy=pb.NamespacePolicy(
            keep_last=policy.keep_last,
            keep_days=policy.keep_days,
            protected_aliases=policy.protected_aliases,
            required_statements=policy.required_statements,
            distinct_promoter=policy.distinct_promoter,
            signers=policy.signers,
            min_approvals=policy.min_approvals,
            trusted_keys=policy.trusted_keys,
            signed_publish=policy.signed_publish,
        ),
    )

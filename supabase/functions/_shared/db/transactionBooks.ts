/** The statements that keep `holdfast.transactions`. They travel with the opening, the commit and the rollback. */
import type { Actor } from '../core/caller.ts'
import { sql, sqlArray, type SqlQuery } from './sql.ts'
import type { Isolation } from './transaction.ts'

/** Whoever a transaction runs as; `service` is the reason why it needs the rights of `service_role`. */
export type RunAs = Actor | { service: string }

/** What the books say of a transaction from its beginning on. */
export interface TransactionFacts {
  callerRole: string
  callerId?: string
  functionName?: string
  requestId?: string
  isolation: Isolation
  attempt: number
  timeoutMs: number
}

export interface Ending {
  status: 'rolled_back' | 'timed_out'
  operations: number
  tables: readonly string[]
  errorCode?: string
}

export function factsOf(
  as: RunAs,
  rest: { functionName?: string; isolation: Isolation; attempt: number; timeoutMs: number },
): TransactionFacts {
  if ('service' in as) return { ...rest, callerRole: 'service_role' }
  const { caller, request } = as
  return {
    ...rest,
    callerRole: caller.role,
    callerId: caller.userId,
    functionName: rest.functionName ?? request?.functionName,
    requestId: request?.requestId,
  }
}

/**
 * For `BeginOptions.before`. Not flushed to disk: should the server die this instant, the transaction dies with it,
 * and the commit writes the whole row again if it has to.
 */
export function openBooks(id: string, facts: TransactionFacts): SqlQuery {
  return sql`
    select set_config('synchronous_commit', 'off', true),
      holdfast.write_transaction(${id}, ${facts}, 'open')`
}

/** For `BeginOptions.opening`: the lock by which the living are known, and the id the server will know it by. */
export function openingOf(id: string): SqlQuery[] {
  return [
    sql`pg_advisory_xact_lock(holdfast.transaction_lock_key(${id}))`,
    sql`pg_current_xact_id()::text as xid`,
  ]
}

/** For `CommitOptions.closing`, as the last one. */
export function commitBooks(
  id: string,
  facts: TransactionFacts,
  { operations, tables }: { operations: number; tables: readonly string[] },
): SqlQuery {
  return sql`select holdfast.commit_transaction(${id}, ${facts}, ${operations}, ${sqlArray(tables)}::text[])`
}

/** For `RollbackOptions.after`. */
export function endBooks(id: string, facts: TransactionFacts, ending: Ending): SqlQuery {
  const { status, operations, tables, errorCode } = ending
  return sql`
    select set_config('synchronous_commit', 'off', true),
      holdfast.write_transaction(
        ${id}, ${facts}, ${status}, ${operations}, ${sqlArray(tables)}::text[], ${errorCode})`
}

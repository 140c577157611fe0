/** Schema `holdfast`: the secret key reads the books, for Studio and support; functions alone write them. */
import { each, everyRole, noRole, noWrites, onlyService, type TableRules, type Uses } from './rules.ts'

function books(about: string): TableRules {
  return { about, select: onlyService, ...noWrites }
}

export const holdfastTables: Record<string, TableRules> = {
  'holdfast.transactions': books('What became of each transaction.'),
  'holdfast.compensations': books('What has to be undone, with its input.'),
  'holdfast.idempotency_keys': books('Requests that were answered, and their answers.'),
  'holdfast.circuit_breakers': books('The state that all isolates share.'),
  'holdfast.circuit_breaker_counts': books('Calls counted for each breaker.'),
  'holdfast.circuit_breaker_events': books('Each change of state, and who forced it.'),
  'holdfast.circuit_breaker_status': books('View: the breakers in plain words.'),
  'holdfast.rate_limits': books('What each key has used up.'),
  'holdfast.rate_limit_status': books('View: the limits in plain words.'),
  'holdfast.cache_entries': books('Cached values; they may be anything, also personal.'),
}

export const holdfastSequences: Record<string, Uses> = each(noRole, [
  'holdfast.compensation_positions',
  'holdfast.idempotency_lease_tokens',
  'holdfast.circuit_breaker_tokens',
  'holdfast.circuit_breaker_events_id_seq',
  'holdfast.cache_tokens',
])

/** Called by `postgres` alone: by `db().asService()`, by pg_cron, and by a person in the SQL editor. */
const internal = [
  'holdfast.stamp_times()',
  'holdfast.transaction_retention()',
  'holdfast.transaction_lock_key(uuid)',
  'holdfast.write_transaction(uuid,jsonb,text,bigint,text[],text)',
  'holdfast.commit_transaction(uuid,jsonb,bigint,text[])',
  'holdfast.transaction_status_of(text)',
  'holdfast.resolve_transaction(uuid,jsonb,text,boolean)',
  'holdfast.sweep_transactions()',
  'holdfast.purge_transactions(bigint)',
  'holdfast.compensation_grace()',
  'holdfast.bar_transaction(uuid)',
  'holdfast.record_compensation(uuid,bigint,text,text,jsonb,text,text,text,text)',
  'holdfast.settle_compensations(uuid,uuid[])',
  'holdfast.withdraw_compensation(uuid,uuid)',
  'holdfast.compensation_max_attempts()',
  'holdfast.compensation_backoff(bigint)',
  'holdfast.compensation_retention()',
  'holdfast.claim_compensation(text,text[],bigint,uuid,boolean)',
  'holdfast.finish_compensation(uuid,bigint,text,boolean)',
  'holdfast.retry_compensation(uuid)',
  'holdfast.ring_compensations()',
  'holdfast.purge_compensations(bigint)',
  'holdfast.find_idempotent_answers(bytea[],bytea[])',
  'holdfast.claim_idempotency_key(bytea,bytea)',
  'holdfast.require_answer_size(text,bigint)',
  'holdfast.store_idempotent_answer(bytea,bytea,text,text,text,smallint,text,text,bigint,bigint)',
  'holdfast.purge_idempotency_keys(bigint)',
  'holdfast.lease_idempotency_key(bytea,bytea,text,text,text,bigint,bigint)',
  'holdfast.complete_idempotency_key(bytea,bigint,smallint,text,text,bigint)',
  'holdfast.require_completed_idempotency_key(bytea,bigint,smallint,text,text,bigint,bigint)',
  'holdfast.release_idempotency_key(bytea,bigint)',
  'holdfast.change_circuit_breaker(text,text,text,double precision,text,bigint,bigint)',
  'holdfast.force_circuit_breaker(text,text,text,jsonb)',
  'holdfast.default_circuit_breaker_rules()',
  'holdfast.circuit_breaker_retention()',
  'holdfast.purge_circuit_breaker_events(bigint)',
  'holdfast.require_circuit_breaker_reports(jsonb)',
  'holdfast.count_circuit_breaker_calls(jsonb)',
  'holdfast.apply_circuit_breaker_report(jsonb)',
  'holdfast.probe_wait_ms(holdfast.circuit_breakers,double precision)',
  'holdfast.exchange_circuit_breakers(jsonb)',
  'holdfast.block_rate_limit(text,bigint)',
  'holdfast.reset_rate_limit(text)',
  'holdfast.purge_rate_limits(bigint)',
  'holdfast.decide_rate_limit(text,bigint[],bigint,bigint)',
  'holdfast.decide_rate_limits(text[],bigint[])',
  'holdfast.decide_gcra_limit(text,bigint,bigint,bigint,bigint,bigint)',
  'holdfast.decide_gcra_limits(text[],bigint[],bigint,bigint,bigint,bigint)',
  'holdfast.enter_guards(bigint[],jsonb,jsonb)',
  'holdfast.lease_cache_entry(text,text,text,text[],double precision,double precision)',
  'holdfast.read_cache_entries(jsonb)',
  'holdfast.write_cache_entry(text,text,text,text[],bigint,text,double precision,double precision)',
  'holdfast.release_cache_entry(text,text,bigint)',
  'holdfast.invalidate_cache(text,text[],text[])',
  'holdfast.purge_cache_entries(bigint)',
]

export const holdfastFunctions: Record<string, Uses> = {
  'holdfast.is_admin()': everyRole,
  ...each(noRole, internal),
}

/** Which policies a command has to pass, and how many rows pass them. */
import type { Policy } from './explainRights.ts'
import {
  type Answer,
  answerTo,
  type Condition,
  isTimeout,
  type Question,
  type Questions,
  type Source,
} from './explainRows.ts'
import type { Session } from './explainSession.ts'
import type { Command, Count, Gate, PolicyAnswer } from './explanation.ts'

/** What one command meets of row level security. */
export interface Gates {
  gates: Gate[]
  /** Rows that the command reaches, or that it may insert; absent when a policy raised an error. */
  rows?: Count
  /** Of the rows that an update reaches, those that its values make unacceptable: one fails the whole statement. */
  refused?: { byCheck: number; bySelect: number }
  /** What was raised instead of an answer, and by which policy, if one can be named. */
  error?: { policy?: string; message: string; cannotBeAsked?: boolean }
}

export interface GateOptions {
  /** Whoever may not select names no column in WHERE and RETURNING, and meets no policy for SELECT. */
  maySelect: boolean
  /** The values of an update or an insert are known. */
  hasValues: boolean
}

/** A gate before it is asked. */
interface Plan {
  name: Gate['name']
  command: Command
  use: 'using' | 'check'
  source: Source
  policies: Policy[]
  forOthers: string[]
  /** What the rows that it is asked about have to pass before: an update writes only what it reaches. */
  base: Condition[]
  /** The rows of the gate, and those of each policy. */
  together: Question
  alone: Question[]
}

/** A command whose questions are made, to be asked in the name of the caller. */
export interface PlannedGates {
  plans: Plan[]
  /** Counts what passes all that decides; with the values of an update also what its values make of it. */
  outcome: Question
}

/**
 * The outcome is one question, as the command would meet it: the planner leaves out what cannot matter, and so may
 * never come to a policy that would fail. Each gate, and each policy, is a question of its own.
 */
export async function planGates(
  questions: Questions,
  policies: readonly Policy[],
  command: Command,
  { maySelect, hasValues }: GateOptions,
): Promise<PlannedGates> {
  const row: Source = command === 'insert' && hasValues ? 'inserted' : 'old'
  const plan = (name: Plan['name'], of: Command, source: Source, base: Condition[] = []) =>
    planGate(questions, policies, {
      name,
      command: of,
      use: name === 'check' ? 'check' : 'using',
      source,
      base,
    })
  const using = command === 'insert' ? [] : [await plan('using', command, 'old')]
  const select = maySelect && command !== 'select' ? [await plan('select', 'select', row)] : []
  if (command === 'insert') {
    const check = await plan('check', command, row)
    return { plans: [check, ...select], outcome: await questions.make(row, [[gateOf(check)]]) }
  }
  const reached = [...using, ...select].map(gateOf)
  if (command !== 'update') {
    return { plans: [...using, ...select], outcome: await questions.make('old', [reached]) }
  }
  const check = await plan('check', command, hasValues ? 'new' : 'old', reached)
  const accepted = gateOf(check)
  const seen = maySelect ? [gateOf({ ...select[0]!, source: 'new' })] : []
  const counts = [[...reached], [...reached, accepted], [...reached, accepted, ...seen]]
  return {
    plans: [...using, ...select, check],
    outcome: await questions.make('old', hasValues ? counts : counts.slice(0, 1)),
  }
}

/** @param objection what PostgreSQL says against the command before it meets a row, if anything */
export async function askGates(
  session: Session,
  { plans, outcome }: PlannedGates,
  objection: string | undefined,
): Promise<Gates> {
  const gates: Gate[] = []
  for (const plan of plans) gates.push(await askGate(session, plan))
  const answer: Awaited<ReturnType<typeof attempt>> = objection === undefined
    ? await attempt(session, outcome)
    : { error: objection }
  if ('error' in answer) {
    const errors = gates.flatMap((gate) => gate.policies).filter((policy) => policy.error !== undefined)
    const failing = errors.find((policy) => policy.error === answer.error) ??
      (objection ? undefined : errors[0])
    const { cannotBeAsked } = answer
    return { gates, error: { policy: failing?.name, message: failing?.error ?? answer.error, cannotBeAsked } }
  }
  const [passed = 0, accepted, seen] = answer.passed
  const refused = accepted === undefined || seen === undefined
    ? undefined
    : { byCheck: passed - accepted, bySelect: accepted - seen }
  return { gates, rows: { passed, of: answer.total }, refused }
}

async function planGate(
  { make }: Questions,
  all: readonly Policy[],
  gate: Pick<Plan, 'name' | 'command' | 'use' | 'source' | 'base'>,
): Promise<Plan> {
  const { command, use, source, base } = gate
  const isFor = (policy: Policy) => policy.for === 'all' || policy.for === command
  // A policy without the expression that is asked for counts for nothing, as in PostgreSQL.
  const policies = all.filter((policy) => policy.applies && isFor(policy) && policy[use] !== undefined)
  const forOthers = all.filter((policy) => !policy.applies && isFor(policy)).map(({ name }) => name)
  const first = base.length > 0 ? 'old' : source
  const ask = (conditions: Condition[]) => make(first, [base, ...conditions.map((one) => [...base, one])])
  const ballots = policies.map((policy) => ({ source, sql: ballotOf(policy, use) }))
  const alone: Question[] = []
  for (const ballot of ballots) alone.push(await ask([ballot]))
  return {
    ...gate,
    policies,
    forOthers,
    together: await ask([gateOf({ policies, use, source }), ...ballots]),
    alone,
  }
}

/** One of the permissive has to hold, and all of the restrictive. Without a permissive one nothing passes. */
function gateOf({ policies, use, source }: Pick<Plan, 'policies' | 'use' | 'source'>): Condition {
  const ballots = (kind: Policy['kind']) =>
    policies.filter((policy) => policy.kind === kind).map((policy) => ballotOf(policy, use))
  const permissive = ballots('permissive').join(' or ') || 'false'
  return { source, sql: [`(${permissive})`, ...ballots('restrictive')].join(' and ') }
}

function ballotOf(policy: Policy, use: 'using' | 'check'): string {
  return `((${policy[use]}) is true)`
}

/** Asks all in one pass; when that fails one after the other, to see which policy it was. */
async function askGate(session: Session, plan: Plan): Promise<Gate> {
  const { name, policies, forOthers } = plan
  const together = await attempt(session, plan.together)
  const answers: PolicyAnswer[] = []
  for (const [nth, policy] of policies.entries()) {
    answers.push({
      ...described(policy, plan),
      ...('error' in together
        ? readAnswer(await attempt(session, plan.alone[nth]!), 1)
        : readAnswer(together, nth + 2)),
    })
  }
  return { name, policies: answers, forOthers, rows: readAnswer(together, 1).rows }
}

/** The count at that place, of the rows that the first one counts. */
function readAnswer(answer: Answer | { error: string }, nth: number): Pick<PolicyAnswer, 'rows' | 'error'> {
  if ('error' in answer) return { error: answer.error }
  return { rows: { passed: answer.passed[nth] ?? 0, of: answer.passed[0] ?? 0 } }
}

/** A policy that is slow is no policy that fails: whoever asked asks again about fewer rows. */
async function attempt(
  session: Session,
  question: Question,
): Promise<Answer | { error: string; cannotBeAsked?: boolean }> {
  if ('broken' in question) {
    return { error: `it cannot be asked by itself: ${question.broken}`, cannotBeAsked: true }
  }
  const tried = await session.attempt(() => answerTo(session, question))
  if ('value' in tried) return tried.value
  if (isTimeout(tried.error)) throw tried.error
  return { error: tried.error.message }
}

function described({ name, kind, for: command, roles, ...policy }: Policy, { use }: Plan): PolicyAnswer {
  // The server breaks lines as it likes.
  const expression = (policy[use] ?? '').replace(/\s*\n\s*/g, ' ').trim()
  return { name, kind, for: command, roles, expression }
}

/** Whether the gate has a say in what is reached. SELECT policies of an insert matter for RETURNING only. */
export function isDecisive(command: Command, gate: Gate): boolean {
  return command === 'insert' ? gate.name === 'check' : gate.name !== 'check'
}

/** What a host call answers when it can be refused. */

/** Why a host call was refused or failed; `code` is stable (see keelstone.wit). */
export class Failure {
  constructor(
    public code: string,
    public message: string,
  ) {}

  toString(): string {
    return this.code + ": " + this.message;
  }
}

/** A value or a failure; `failed` tells which. Read `value` only when it did not fail. */
export class Outcome<T> {
  private constructor(
    private _value: T,
    private _failure: Failure | null,
  ) {}

  static of<T>(value: T): Outcome<T> {
    return new Outcome<T>(value, null);
  }

  static failure<T>(failure: Failure, nothing: T): Outcome<T> {
    return new Outcome<T>(nothing, failure);
  }

  get failed(): bool {
    return this._failure !== null;
  }

  get value(): T {
    return this._value;
  }

  get failure(): Failure {
    return this._failure!;
  }
}

/**
 * The first failure that the plugin did not look at. The call then fails as a whole and the host
 * drops its effects: AssemblyScript has no exceptions, and going on with half the writes would lie.
 */
let unseen: string | null = null;

/** The value of `outcome`; a failure makes the whole call fail, naming the host call `what`. */
export function insist<T>(outcome: Outcome<T>, what: string): T {
  if (outcome.failed && unseen === null) unseen = what + ": " + outcome.failure.toString();
  return outcome.value;
}

/** The failure that ends this call, or null. */
export function unseenFailure(): string | null {
  return unseen;
}
